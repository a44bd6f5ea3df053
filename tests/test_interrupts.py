"""Which threads may be interrupted is known in each of them."""

from __future__ import annotations

from django.test import SimpleTestCase

from django_actors.interrupts import expect_interrupts, is_interruptible
from tests.engine import in_thread, wait_until

from .test_worker import WorkerMixin


class InterruptTests(WorkerMixin, SimpleTestCase):
    def test_a_thread_that_runs_actors_may_be_interrupted(self):
        seen: list[bool] = []
        look = self.declare(lambda: seen.append(is_interruptible()), actor_name="look")
        self.start()

        look.send()

        wait_until(lambda: seen)
        self.assertEqual(seen, [True])

    def test_no_other_thread_may_be(self):
        def expect() -> bool:
            expect_interrupts()
            return is_interruptible()

        self.assertTrue(in_thread(expect))
        self.assertFalse(is_interruptible())
        self.assertFalse(in_thread(is_interruptible))
