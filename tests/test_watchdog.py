"""Who ends what runs for too long."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

from django.test import SimpleTestCase

from django_actors import watchdog as module
from django_actors.delivery import Delivery
from django_actors.errors import Interrupt, TimeLimitExceeded
from django_actors.slots import WorkerSlot
from django_actors.watchdog import Watchdog

from .engine import begin, deliver, make_message, wait_until
from .support import actors_settings, keep_log


class FakeSlot(WorkerSlot):
    """A slot whose thread never reacts to an interrupt."""

    def __init__(self, delivery: Delivery | None = None) -> None:
        super().__init__(0, None)
        self.delivery: Any = delivery
        self.interrupts: list[type[Interrupt]] = []

    def interrupt(self, delivery: Delivery, error: type[Interrupt]) -> bool:
        self.interrupts.append(error)
        return len(self.interrupts) == 1


def overdue(by_s: float) -> Any:
    return deliver(make_message("work"), deadline=time.monotonic() - by_s)


class LookTests(SimpleTestCase):
    def setUp(self) -> None:
        self.log = keep_log(self)
        self.given_up: list[Any] = []

    def look(self, *slots: WorkerSlot, times: int = 1) -> None:
        watchdog = Watchdog(slots, lambda slot, delivery: self.given_up.append((slot, delivery)))
        for _ in range(times):
            watchdog.look()

    def test_what_is_in_time_is_left_alone(self):
        slots = [FakeSlot(), FakeSlot(overdue(-60)), FakeSlot(deliver(make_message()))]

        self.look(*slots, times=3)

        self.assertEqual([each.interrupts for each in slots], [[], [], []])
        self.assertEqual(self.given_up, [])

    def test_what_is_over_its_limit_is_interrupted_and_named_in_the_log(self):
        slot = FakeSlot(overdue(0.1))

        self.look(slot)

        self.assertEqual(slot.interrupts, [TimeLimitExceeded])
        self.assertEqual(self.given_up, [])
        self.assertEqual(
            self.log.lines(),
            [f"Time limit exceeded. Interrupted message {slot.delivery.message_id}."],
        )

    def test_it_has_the_grace_to_react(self):
        slot = FakeSlot(overdue(4))

        with actors_settings(TIME_LIMIT_GRACE=5_000):
            self.look(slot, times=3)

        self.assertEqual(self.given_up, [])
        self.assertEqual(len(self.log.lines()), 1)

    def test_after_the_grace_it_is_given_up(self):
        slot = FakeSlot(overdue(6))

        with actors_settings(TIME_LIMIT_GRACE=5_000):
            self.look(slot, times=2)

        self.assertEqual(self.given_up, [(slot, slot.delivery)])

    def test_nothing_is_given_up_before_it_was_interrupted(self):
        slot = FakeSlot(overdue(3_600))

        self.look(slot)

        self.assertEqual(self.given_up, [])

    def test_one_that_ends_meanwhile_is_not_given_up(self):
        class Ending(FakeSlot):
            def interrupt(self, delivery, error):
                self.delivery = None
                return False

        self.look(Ending(overdue(3_600)), times=2)

        self.assertEqual(self.given_up, [])

    def test_every_slot_is_looked_at(self):
        slots = [FakeSlot(overdue(1)) for _ in range(3)]

        self.look(*slots)

        self.assertEqual([len(each.interrupts) for each in slots], [1, 1, 1])


class ThreadTests(SimpleTestCase):
    def setUp(self) -> None:
        self.log = keep_log(self)
        ticking = patch.object(module, "TICK_S", 0.005)
        ticking.start()
        self.addCleanup(ticking.stop)

    def watch(self, *slots: WorkerSlot, give_up: Any = None) -> Watchdog:
        watchdog = Watchdog(slots, give_up or (lambda slot, delivery: None))
        watchdog.start()
        self.addCleanup(watchdog.join, 30)
        self.addCleanup(watchdog.stop)
        return watchdog

    def run_for_ever(self, slot: WorkerSlot, delivery: Delivery) -> str:
        try:
            slot.begin(delivery)
            while True:
                pass
        except TimeLimitExceeded:
            return "cleaned up"
        finally:
            slot.end(delivery)

    def test_an_endless_actor_is_interrupted_in_its_thread(self):
        slot, delivery = WorkerSlot(0, None), overdue(-0.02)

        task = begin(self.run_for_ever, slot, delivery)
        self.watch(slot)

        self.assertEqual(task.result(), "cleaned up")
        self.assertGreaterEqual(time.monotonic(), delivery.deadline)

    def test_it_sleeps_until_the_next_deadline(self):
        self.enterContext(patch.object(module, "LONGEST_S", 60.0))
        slots = [WorkerSlot(number, None) for number in range(2)]
        slots[0].begin(overdue(-30))
        watchdog = self.watch(*slots)
        wait_until(lambda: watchdog._next_look > 0)

        slots[1].begin(overdue(-40))

        self.assertFalse(watchdog._bell.is_set())
        self.assertAlmostEqual(watchdog._next_look, time.monotonic() + 30, delta=5)

    def test_it_hears_of_a_nearer_deadline(self):
        self.enterContext(patch.object(module, "LONGEST_S", 60.0))
        slot = WorkerSlot(0, None)
        watchdog = self.watch(slot)
        wait_until(lambda: watchdog._next_look > 0)

        task = begin(self.run_for_ever, slot, overdue(-0.05))

        self.assertEqual(task.result(), "cleaned up")

    def test_a_message_without_a_limit_wakes_nobody(self):
        watchdog = self.watch(slot := WorkerSlot(0, None))
        wait_until(lambda: watchdog._next_look > 0)

        slot.begin(deliver(make_message("work")))

        self.assertFalse(watchdog._bell.is_set())

    def test_it_goes_on_after_trouble(self):
        tried: list[Any] = []

        def fail(slot: WorkerSlot, delivery: Delivery) -> None:
            tried.append(delivery)
            raise ValueError("cannot give up")

        with actors_settings(TIME_LIMIT_GRACE=0):
            self.watch(FakeSlot(overdue(1)), give_up=fail)
            wait_until(lambda: len(tried) > 1)

        self.assertIn("The watchdog stumbled", self.log.text())
        self.assertIn("cannot give up", self.log.text())

    def test_it_ends_when_it_is_told_to(self):
        watchdog = Watchdog([], lambda slot, delivery: None)
        watchdog.start()

        watchdog.stop()
        watchdog.join(30)

        self.assertFalse(watchdog.is_alive())
