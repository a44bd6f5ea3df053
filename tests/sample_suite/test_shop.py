"""
The tests of the sample project, in every kind of test case.

Each class sends in each of its tests, and each test says first that it started empty: in
whatever order and process they run, what one leaves no other may see.
"""

import multiprocessing
import os
import threading
from urllib.request import urlopen

from django.core import mail
from django.db import transaction
from django.test import LiveServerTestCase, SimpleTestCase, TestCase, TransactionTestCase
from shop.models import Order
from shop.tasks import confirm, count, flaky, note, ship

from django_actors import Worker, get_broker
from django_actors.test import (
    ActorsTestMixin,
    actor_clock,
    arun_actors,
    assert_not_sent,
    assert_sent,
    run_actors,
    sent,
)


def leave_trace():
    """Note in which process a test runs, for whoever has asked for several."""
    if path := os.environ.get("SAMPLE_TRACE"):
        with open(path, "a") as trace:
            trace.write(f"{os.getpid()} {multiprocessing.current_process().name}\n")


class StartsEmpty:
    """Tests that leave messages of every kind behind: ready, delayed, retried, dead."""

    def setUp(self):
        super().setUp()
        leave_trace()
        self.assert_empty()

    def assert_empty(self):
        broker = get_broker()
        self.assertEqual(type(broker).__name__, "StubBroker")
        self.assertEqual(type(broker.middleware[-1]).__name__, "Marker")
        self.assertEqual(sent(), [])
        self.assertEqual(run_actors(until_idle=True), [])
        self.assertEqual(broker.dead_letters, [])

    def test_a_ready_message_is_left(self):
        note.send("ready")

        self.assertEqual([m.args for m in sent()], [("ready",)])

    def test_a_delayed_message_is_left(self):
        note.send_with_options(args=("delayed",), delay=60_000)
        mail.outbox = []

        # Replacing the mailbox is no new test.
        self.assertEqual([m.args for m in sent(note)], [("delayed",)])

    def test_a_dead_letter_and_a_thread_s_message_are_left(self):
        note.send_with_options(args=("old",), max_age=0)
        thread = threading.Thread(target=note.send, args=("thread",))
        thread.start()
        thread.join()

        self.assertEqual(len(run_actors(raise_errors=False)), 2)
        self.assertEqual(len(get_broker().dead_letters), 1)

    async def test_a_coroutine_s_message_is_left(self):
        await note.asend("async")
        note.send("sync")

        self.assertEqual([m.args[0] for m in sent(note)], ["async", "sync"])
        self.assertEqual([str(r.outcome) for r in await arun_actors()], ["done", "done"])
        await note.asend("left")


class SimpleTests(StartsEmpty, SimpleTestCase):
    def test_what_needs_a_database_says_so(self):
        confirm.send(1)

        with self.assertRaises(AssertionError) as caught:
            run_actors()

        self.assertIn(
            "run actors that ask the database in a TestCase", caught.exception.__notes__[0]
        )


class DatabaseTests(StartsEmpty):
    def test_what_was_sent_runs_and_what_that_sends(self):
        Order.objects.create(number=1)
        confirm.send(1)

        results = run_actors()

        self.assertEqual([str(r) for r in results], ["shop.confirm(1): done", "shop.ship(1): done"])
        self.assertEqual(Order.objects.get().mails, 2)

    def test_a_rolled_back_send_is_gone(self):
        with transaction.atomic():
            note.send("outer")
            with self.assertRaises(KeyError), transaction.atomic():
                note.send("inner")
                note.send_with_options(args=("later",), delay=1_000)
                raise KeyError

        assert_sent(note, "outer")
        assert_not_sent(note, "inner")
        self.assertEqual([r.message.args for r in run_actors(until_idle=True)], [("outer",)])

    def test_a_failed_actor_leaves_its_writes_and_a_retry(self):
        flaky.send(7)

        with self.assertRaises(ConnectionError):
            run_actors()

        self.assertEqual(Order.objects.filter(number=7).count(), 1)

    def test_time_passes_by_the_clock(self):
        with actor_clock() as clock:
            note.send_with_options(args=("week",), delay=7 * 86_400_000)
            self.assertEqual(run_actors(), [])
            clock.advance(days=7)
            self.assertEqual(len(run_actors()), 1)

    async def test_async_actors_run_in_the_test(self):
        await Order.objects.acreate(number=3)
        await count.asend()

        [result] = await arun_actors()

        self.assertEqual(result.value, 1)


class PlainTests(DatabaseTests, TestCase):
    @classmethod
    def setUpTestData(cls):
        note.send("class data")
        Order.objects.create(number=99).delete()

    def test_recording_asks_no_query(self):
        with self.assertNumQueries(0):
            note.send("x")
            note.send_with_options(args=("y",), delay=1_000)
            sent()

    def test_commit_callbacks_and_run_actors_agree(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: note.send("on commit"))
            note.send("at once")
        self.assertGreaterEqual(len(callbacks), 2)

        self.assertEqual(sorted(r.message.args[0] for r in run_actors()), ["at once", "on commit"])
        self.assertEqual(run_actors(), [])

    def test_a_thread_worker_sees_what_the_test_sent(self):
        worker = Worker(get_broker(), worker_timeout=100, worker_threads=1)
        worker.start()
        self.addCleanup(worker.stop)
        with transaction.atomic():
            note.send("threads")

        get_broker().join("default", timeout=20_000)
        worker.join()


class CommittedTests(DatabaseTests, TransactionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        note.send("class data")


class LiveTests(StartsEmpty, LiveServerTestCase):
    def test_a_request_of_another_thread_sends(self):
        urlopen(f"{self.live_server_url}/order/5/").close()

        assert_sent(confirm, 5)
        self.assertEqual(len(run_actors()), 2)
        self.assertEqual(Order.objects.get().mails, 2)


class MixinTests(ActorsTestMixin, TestCase):
    def test_the_helpers_are_methods(self):
        with self.clock() as clock, self.capture() as captured:
            ship.send_with_options(args=(1,), delay=1_000)
            clock.advance(seconds=1)
            self.assertEqual(len(self.run(queues=["shipping"])), 1)

        self.assertEqual(len(captured), 1)
        self.assert_sent(ship, 1)
        self.assert_not_sent(confirm)
        self.assertEqual(self.sent(), captured)
