"""The I/O thread: what is finished is settled, whatever happens in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from django.db import DataError, IntegrityError, OperationalError, ProgrammingError
from django.test import SimpleTestCase

from django_actors import Worker, intake
from django_actors.brokers.stub import StubBroker, StubConsumer
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.errors import BrokerUnavailable
from django_actors.intake import Intake
from django_actors.pace import Pace
from tests.engine import ActorsMixin, begin, silence, wait_until

LOGGER = "django_actors.worker.ConsumerThread"

Settle = Callable[[Any, Sequence[Delivery]], None]


class IntakeCase(ActorsMixin, SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker: StubBroker = self.use(StubBroker())
        self.really_settle: Settle = self.broker.settle
        self.ran: list[Any] = []
        self.note = self.declare(self.ran.append, actor_name="note")
        self.enterContext(mock.patch.object(intake, "SHORTEST_PAUSE_S", 0.001))
        self.enterContext(mock.patch.object(intake, "LONGEST_PAUSE_S", 0.01))

    def start(self, **options: Any) -> Worker:
        return self.start_worker(self.broker, **options)

    def replace_settle(self, settle: Settle) -> None:
        self.enterContext(mock.patch.object(self.broker, "settle", settle))

    def wait_until_settled(self) -> None:
        wait_until(lambda: self.broker.queue_size("default") == (0, 0))

    def dead(self) -> list[Delivery]:
        return self.broker.dead_letters


class OutageTests(IntakeCase):
    """The broker or the database does not answer for a while."""

    def fail_at_first(self, *errors: Exception) -> None:
        left = list(errors)

        def settle(consumer: Any, deliveries: Sequence[Delivery]) -> None:
            if left:
                raise left.pop()
            self.really_settle(consumer, deliveries)

        self.replace_settle(settle)

    def test_what_cannot_be_settled_now_is_settled_later_without_running_again(self):
        for error in (
            BrokerUnavailable("The broker is away."),
            OperationalError("The server is away."),
            ProgrammingError("There is no such table yet."),
        ):
            with self.subTest(error=error), silence():
                self.ran.clear()
                self.fail_at_first(error, error, error)
                worker = self.start()

                self.note.send("Ada")
                self.wait_until_settled()
                worker.stop()

                self.assertEqual(self.ran, ["Ada"])
                self.assertEqual(self.dead(), [])

    def test_an_outage_is_said_once_and_so_is_its_end(self):
        self.fail_at_first(*[BrokerUnavailable("The broker is away.")] * 3)

        with self.assertLogs(LOGGER, "INFO") as logs:
            self.start()
            self.note.send("Ada")
            self.wait_until_settled()
            wait_until(lambda: len(logs.records) == 2)

        self.assertIn("The worker waits for its broker: The broker is away.", logs.output[0])
        self.assertIn("goes on after 3 failed attempts", logs.output[1])

    def test_a_lock_is_nothing_to_talk_about(self):
        self.fail_at_first(OperationalError("database is locked"))

        with self.assertNoLogs(LOGGER, "INFO"):
            self.start()
            self.note.send("Ada")
            self.wait_until_settled()

    def test_a_worker_goes_on_when_it_can_fetch_again(self):
        errors: list[Exception] = [BrokerUnavailable("Away."), OperationalError("Away.")]
        fetch = StubConsumer.fetch

        def fail_first(consumer: StubConsumer, *args: Any, **kwargs: Any) -> list[Delivery]:
            if errors:
                raise errors.pop()
            return fetch(consumer, *args, **kwargs)

        with mock.patch.object(StubConsumer, "fetch", fail_first), silence():
            self.start()
            self.note.send("Ada")
            wait_until(lambda: self.ran == ["Ada"])

    def test_a_broker_that_cannot_be_reached_at_the_start_is_waited_for(self):
        consume = self.broker.consume
        refusals = [BrokerUnavailable("Away.")] * 3

        def refuse_first(*args: Any, **kwargs: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return consume(*args, **kwargs)

        with mock.patch.object(self.broker, "consume", refuse_first), silence():
            self.start()
            self.note.send("Ada")
            wait_until(lambda: self.ran == ["Ada"])

    def test_an_error_nobody_expected_does_not_end_the_thread(self):
        errors = [RuntimeError("A bug.")]
        fetch = StubConsumer.fetch

        def fail_first(consumer: StubConsumer, *args: Any, **kwargs: Any) -> list[Delivery]:
            if errors:
                raise errors.pop()
            return fetch(consumer, *args, **kwargs)

        with (
            mock.patch.object(StubConsumer, "fetch", fail_first),
            self.assertLogs(LOGGER, "ERROR") as logs,
        ):
            self.start()
            self.note.send("Ada")
            wait_until(lambda: self.ran == ["Ada"])

        self.assertIn("The consumer stumbled", logs.output[0])

    def test_a_worker_that_must_stop_during_an_outage_says_what_will_run_again(self):
        self.enterContext(mock.patch.object(intake, "FINISH_S", 0.05))

        def fail(consumer: Any, deliveries: Sequence[Delivery]) -> None:
            raise BrokerUnavailable("The broker is away.")

        self.replace_settle(fail)
        worker = self.start()
        with self.assertLogs(LOGGER, "ERROR") as logs:
            self.note.send("Ada")
            wait_until(lambda: self.ran == ["Ada"])
            worker.stop()

        self.assertIn("1 messages were run but could not be settled", logs.output[0])
        self.assertFalse(worker.intake.is_alive())
        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_a_consumer_that_cannot_be_closed_is_no_obstacle(self):
        close = mock.patch.object(StubConsumer, "close", side_effect=BrokerUnavailable("Away."))
        worker = self.start()
        wait_until(lambda: worker.intake._consumer)

        with close, self.assertLogs(LOGGER, "WARNING") as logs:
            worker.stop()

        self.assertIn("was not closed in order", logs.output[0])
        self.assertFalse(worker.intake.is_alive())


class PoisonTests(IntakeCase):
    """The outcome of one message cannot be written, ever."""

    def refuse(self, error: Exception, *, bury: bool = True) -> None:
        """Refuse to settle what has the argument "poison"."""

        def settle(consumer: Any, deliveries: Sequence[Delivery]) -> None:
            for delivery in deliveries:
                assert delivery.message is not None
                spoilt = delivery.message.args == ("poison",)
                if spoilt and not (bury and delivery.fate is Fate.DEAD):
                    raise error
            self.really_settle(consumer, deliveries)

        self.replace_settle(settle)

    def run_together(self, *names: str) -> Worker:
        """Have messages settled in one batch."""
        worker = self.start(worker_threads=1)
        drain = mock.patch.object(Intake, "_settle", lambda intake, consumer: None)
        with drain:
            self.note.send_many([(name,) for name in names])
            wait_until(lambda: len(self.ran) == len(names))
            wait_until(lambda: len(worker.intake._finished) == len(names))
        return worker

    def test_it_becomes_a_dead_letter_and_the_others_get_through(self):
        for error in (
            ValueError("Out of range."),
            DataError("Value too long."),
            IntegrityError("Not null."),
        ):
            with self.subTest(error=error), silence():
                self.ran.clear()
                self.broker.flush_all()
                self.refuse(error)

                worker = self.run_together("a", "poison", "b")
                self.wait_until_settled()

                [dead] = self.dead()
                self.assertEqual((dead.args, dead.reason), (("poison",), Reason.REJECTED))
                self.assertIs(dead.exception, error)
                self.assertEqual(self.ran, ["a", "poison", "b"])
                worker.stop()

    def test_if_even_that_is_impossible_it_stays_claimed_and_the_worker_goes_on(self):
        self.refuse(ValueError("Never."), bury=False)

        with self.assertLogs(LOGGER, "ERROR") as logs:
            worker = self.run_together("poison", "a")
            wait_until(lambda: self.broker.queue_size("default") == (0, 1))
            self.note.send("next")
            wait_until(lambda: self.ran[-1] == "next")
            wait_until(lambda: not worker.is_busy)

        self.assertIn("Could not bury message note('poison')", "\n".join(logs.output))
        self.assertEqual(self.broker.queue_size("default"), (0, 1))

    def test_an_outage_in_the_middle_settles_nothing_twice(self):
        self.refuse(ValueError("Out of range."))
        refuse = self.broker.settle
        cut: list[str] = []
        settled: list[str] = []

        def cut_once(consumer: Any, deliveries: Sequence[Delivery]) -> None:
            names = [each.message.args[0] for each in deliveries if each.message]
            if names == ["b"] and not cut:
                cut.append("b")
                raise BrokerUnavailable("Away.")
            refuse(consumer, deliveries)
            settled.extend(names)

        with mock.patch.object(self.broker, "settle", cut_once), silence():
            self.run_together("a", "poison", "b")
            self.wait_until_settled()
            wait_until(lambda: "b" in settled)

        self.assertEqual(settled, ["a", "poison", "b"])
        self.assertEqual(len(self.dead()), 1)


class ClaimTests(IntakeCase):
    def test_what_no_thread_comes_to_is_given_back_for_others(self):
        self.enterContext(mock.patch.object(intake, "RETURN_AFTER_S", 0.05))
        self.enterContext(mock.patch.object(Pace, "ahead", 5))
        door = self.make_door()
        self.start(worker_threads=1)
        door.send()
        self.reached.acquire(timeout=10)
        with mock.patch.object(Pace, "ahead", 0):
            self.note.send_many([(number,) for number in range(4)])

            wait_until(lambda: self.broker.queue_size("default") == (4, 1))

        self.opened.set()
        wait_until(lambda: self.ran == [0, 1, 2, 3])

    def make_door(self) -> Any:
        self.reached, self.opened = threading.Semaphore(0), threading.Event()
        self.addCleanup(self.opened.set)

        def stand() -> None:
            self.reached.release()
            self.opened.wait(10)

        return self.declare(stand, actor_name="stand")

    def test_no_more_is_claimed_than_can_run_soon(self):
        self.note.send_many([(number,) for number in range(100)])
        worker = self.start(worker_threads=2)
        worker.pause()
        wait_until(lambda: worker.intake.claimed >= 2 or not self.broker.queue_size("default")[0])

        claimed = self.broker.queue_size("default").claimed

        self.assertLessEqual(claimed, 2 + 2 * intake.MOST_AHEAD)

    def test_the_lease_is_kept_however_long_an_idle_worker_may_wait(self):
        self.assertLessEqual(Worker(self.broker, worker_timeout=600_000).intake._timeout_s, 1.0)
        self.assertEqual(Worker(self.broker, worker_timeout=100).intake._timeout_s, 0.1)

    def test_what_is_claimed_while_the_worker_stops_goes_back(self):
        fetch, stopping = StubConsumer.fetch, []

        def stop_in_between(consumer: StubConsumer, *args: Any, **kwargs: Any) -> list[Delivery]:
            deliveries = fetch(consumer, *args, **kwargs)
            if deliveries:
                stopping.append(begin(worker.stop))
                wait_until(lambda: worker.heap._closed)
            return deliveries

        with mock.patch.object(StubConsumer, "fetch", stop_in_between):
            worker = self.start()
            self.note.send("late")
            wait_until(lambda: stopping)
            stopping[0].result()

        self.assertEqual(self.ran, [])
        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_a_delivery_that_comes_to_a_closed_heap_goes_back(self):
        worker = Worker(self.broker)
        worker.heap.close()
        delivery = Delivery(b"", queue_name="default")

        worker.intake._take([delivery])

        self.assertEqual(delivery.fate, Fate.PUT_BACK)
        self.assertEqual(list(worker.intake._finished), [delivery])


class BatchTests(IntakeCase):
    def test_messages_are_settled_at_once_unless_every_thread_has_another_one(self):
        def waits(*, in_heap: int, finished: int = 1, drains: bool = False) -> bool:
            worker = Worker(self.broker, worker_threads=2)
            worker.heap.push([Delivery(b"", queue_name="default")] * in_heap)
            for _ in range(finished):
                worker.intake.finished(Delivery(b"", queue_name="default"))
            if drains:
                worker.intake.drain()
            with mock.patch.object(time, "sleep") as sleep:
                worker.intake._gather()
            return bool(sleep.called)

        self.assertTrue(waits(in_heap=2))
        self.assertFalse(waits(in_heap=1))
        self.assertFalse(waits(in_heap=2, finished=0))
        self.assertFalse(waits(in_heap=2, drains=True))

    def test_what_comes_again_after_a_death_is_looked_up_together(self):
        batches: list[set[str]] = []

        def find_crashes(message_ids: Sequence[str]) -> dict[str, Any]:
            batches.append(set(message_ids))
            return {}

        sent = self.note.send_many([(number,) for number in range(4)])
        victim = self.broker.consume(["default"], owner="victim")
        victim.fetch(4, timeout=0)
        self.broker.release("victim", done=())

        with mock.patch.object(self.broker, "find_crashes", find_crashes):
            self.start(worker_threads=4)
            self.wait_until_settled()

        self.assertEqual(batches, [{message.message_id for message in sent}])
        self.assertEqual(sorted(self.ran), [0, 1, 2, 3])

    def test_what_is_finished_together_is_settled_together(self):
        batches: list[int] = []

        def settle(consumer: Any, deliveries: Sequence[Delivery]) -> None:
            batches.append(len(deliveries))
            time.sleep(0.02)
            self.really_settle(consumer, deliveries)

        self.replace_settle(settle)
        self.note.send_many([(number,) for number in range(200)])

        self.start(worker_threads=4)
        self.wait_until_settled()

        self.assertEqual(sum(batches), 200)
        self.assertLess(len(batches), 100)
