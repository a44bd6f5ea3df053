"""The worker: what it runs, how it stops, and that nothing an actor does can end it."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from django.db import connections, transaction
from django.test import SimpleTestCase, override_settings

from django_actors import Middleware, Worker, clock, crashes, worker
from django_actors.board import Board
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Reason
from django_actors.errors import Shutdown, TimeLimitExceeded
from django_actors.message import Envelope, Message
from django_actors.models import Kind, Lease, QueuedMessage, WaitingMessage
from tests.engine import (
    TIMEOUT_S,
    ActorsMixin,
    EngineCase,
    RemoteBroker,
    begin,
    envelop,
    make_message,
    needs_server,
    silence,
    wait_until,
)


class Door:
    """Something an actor waits at, in a call that no interrupt ends, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self._opened = threading.Event()

    def stand(self) -> None:
        """Come to it, and wait until it is open."""
        self.reached.release()
        self._opened.wait(TIMEOUT_S)

    def wait(self) -> None:
        """Wait until somebody has come to it."""
        if not self.reached.acquire(timeout=TIMEOUT_S):
            raise AssertionError("Nobody came to the door.")

    def open(self) -> None:
        self._opened.set()


def loop() -> None:
    """Run for ever, in Python code."""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        pass


class WorkerMixin(ActorsMixin):
    """
    A broker, and actors that note what they do.

    Attributes:
        ran: What ``self.note`` was sent, in the order in which it ran.
    """

    broker: Any

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(self.make_broker())
        self.ran: list[Any] = []
        self.note = self.declare(self.ran.append, actor_name="note")
        self.door = Door()

    def make_broker(self) -> Any:
        return StubBroker()

    def start(self, **options: Any) -> Worker:
        started = self.start_worker(self.broker, **options)
        # The last thing to be made is the first to be cleaned up: the worker stops after this.
        self.addCleanup(self.door.open)
        return started

    def wait_until_ran(self, *expected: Any) -> None:
        wait_until(lambda: len(self.ran) >= len(expected), f"{expected}, only {self.ran} ran")
        self.assertEqual(self.ran, list(expected))

    def wait_until_settled(self, worker: Worker) -> None:
        wait_until(lambda: not worker.is_busy, "everything to be settled")

    def ready(self, queue_name: str = "default") -> int:
        return int(self.broker.queue_size(queue_name).ready)

    def claimed(self) -> int:
        return int(self.broker.queue_size("default").claimed)


class RunTests(WorkerMixin, SimpleTestCase):
    """As in the guide: a stub broker, a worker, and a join."""

    def test_a_worker_runs_what_is_sent(self):
        worker = self.start()

        self.note.send("Ada")
        self.broker.join("default", timeout=10_000)
        worker.join()

        self.assertEqual(self.ran, ["Ada"])
        self.assertFalse(worker.is_busy)

    def test_a_worker_runs_what_was_sent_before_it_started(self):
        self.note.send("Ada")

        self.start()

        self.wait_until_ran("Ada")

    def test_a_join_raises_what_an_actor_raised(self):
        fail = self.declare(self.fail_once, actor_name="fail", max_retries=0)
        with silence():
            self.start()
            fail.send("No such name.")

            with self.assertRaisesMessage(ValueError, "No such name."):
                self.broker.join("default", timeout=10_000)
            self.broker.join("default", timeout=10_000, fail_fast=False)

    def fail_once(self, text: str) -> None:
        raise ValueError(text)

    def test_messages_run_at_the_same_time_in_as_many_threads_as_were_asked_for(self):
        together = threading.Barrier(3)
        meet = self.declare(lambda: together.wait(TIMEOUT_S), actor_name="meet")
        worker = self.start(worker_threads=3)

        for _ in range(3):
            meet.send()
        self.broker.join("default", timeout=10_000)

        self.assertEqual(len(worker.threads), 3)
        self.assertFalse(together.broken)

    def test_the_most_urgent_message_runs_first(self):
        for priority in (3, 1, 2):
            self.note.send_with_options(args=(priority,), priority=priority)

        self.start(worker_threads=1)

        self.wait_until_ran(1, 2, 3)

    def test_an_urgent_message_overtakes_what_was_claimed_but_not_begun(self):
        block = self.declare(self.door.stand, actor_name="block")
        block.send()
        self.start(worker_threads=1)
        self.door.wait()
        for name in "abc":
            self.note.send_with_options(args=(name,), priority=5)

        self.note.send_with_options(args=("urgent",), priority=-1)
        wait_until(lambda: self.claimed() >= 1)
        self.door.open()

        wait_until(lambda: len(self.ran) == 4)
        self.assertEqual(self.ran[0], "urgent")

    def test_delayed_messages_run_at_their_time_in_the_order_of_it(self):
        now_ms = clock.now_ms()
        moments: list[int] = []
        tick = self.declare(lambda: moments.append(clock.now_ms()), actor_name="tick")
        self.note.send_with_options(args=("second",), eta=now_ms + 200)
        self.note.send_with_options(args=("first",), eta=now_ms + 100)
        tick.send_with_options(eta=now_ms + 150)

        self.start()

        self.wait_until_ran("first", "second")
        self.assertGreaterEqual(moments[0], now_ms + 150)

    def test_a_failure_is_retried_until_it_succeeds(self):
        attempts: list[int] = []

        def fail_twice() -> None:
            attempts.append(1)
            if len(attempts) < 3:
                raise ValueError

        flaky = self.declare(fail_twice, actor_name="flaky", min_backoff=10, max_backoff=10)
        with silence():
            self.start()
            flaky.send()
            self.broker.join("default", timeout=10_000)

        self.assertEqual(len(attempts), 3)
        self.assertEqual(self.broker.dead_letters, [])

    def test_successors_run(self):
        first = self.declare(lambda: 42, actor_name="first", on_success="second")
        self.declare(lambda message, result: self.ran.append(result), actor_name="second")
        self.start()

        first.send()

        self.wait_until_ran(42)

    def test_bytes_that_are_no_message_disturb_nobody(self):
        self.broker.publish([Envelope("", "default", 0, b"\xff\0")])
        self.note.send("Ada")

        with silence():
            self.start()
            self.wait_until_ran("Ada")
            wait_until(lambda: self.broker.dead_letters)

        self.assertEqual(self.broker.dead_letters[0].reason, Reason.UNDECODABLE)

    def test_a_coroutine_runs_to_its_end(self):
        async def greet(name: str) -> None:
            await asyncio.sleep(0)
            self.ran.append(name)

        self.declare(greet, actor_name="greet_async").send("Ada")

        self.start()

        self.wait_until_ran("Ada")


class QueueTests(WorkerMixin, SimpleTestCase):
    def declare_in(self, queue_name: str) -> Any:
        return self.declare(
            lambda: self.ran.append(queue_name),
            actor_name=f"in_{queue_name}",
            queue_name=queue_name,
        )

    def test_a_worker_reads_all_queues_that_are_declared(self):
        mail, sms = self.declare_in("mail"), self.declare_in("sms")
        self.start(worker_threads=1)

        mail.send()
        sms.send()

        wait_until(lambda: sorted(self.ran) == ["mail", "sms"])

    def test_a_worker_can_be_told_which_queues_to_read(self):
        mail, sms = self.declare_in("mail"), self.declare_in("sms")
        self.start(queues={"sms"})

        mail.send()
        sms.send()

        self.wait_until_ran("sms")
        self.assertEqual(self.ready("mail"), 1)

    def test_a_queue_that_an_actor_declares_later_is_read(self):
        self.start()
        self.note.send("first")
        self.wait_until_ran("first")

        self.declare_in("late").send()

        self.wait_until_ran("first", "late")

    def test_a_queue_that_no_actor_declares_is_read(self):
        self.start()
        self.note.send("first")
        self.wait_until_ran("first")

        self.broker.declare_queue("late")
        self.broker.enqueue(make_message("note", "late", queue="late"))

        self.wait_until_ran("first", "late")


class HookRecorder(Middleware):
    """Notes which hooks were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        self.calls.append("before worker")

    def after_worker_boot(self, broker: Any, worker: Any) -> None:
        self.calls.append("after worker")

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.calls.append("before shutdown")

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        self.calls.append("after shutdown")

    def after_consumer_thread_boot(self, broker: Any, thread: Any) -> None:
        self.calls.append("consumer")

    def after_worker_thread_boot(self, broker: Any, thread: Any) -> None:
        self.calls.append("thread")

    def before_worker_thread_shutdown(self, broker: Any, thread: Any) -> None:
        self.calls.append("thread ends")

    def before_consumer_thread_shutdown(self, broker: Any, thread: Any) -> None:
        self.calls.append("consumer ends")

    def before_process_message(self, broker: Any, message: Any) -> None:
        self.calls.append(str(message))


class HookTests(WorkerMixin, SimpleTestCase):
    def test_every_part_says_when_it_begins_and_ends(self):
        recorder = HookRecorder()
        self.broker.add_middleware(recorder)
        worker = self.start(worker_threads=2)
        wait_until(lambda: recorder.calls.count("thread") == 2 and "consumer" in recorder.calls)

        worker.stop()

        self.assertEqual(recorder.calls[0], "before worker")
        self.assertEqual(recorder.calls[-1], "after shutdown")
        self.assertEqual(recorder.calls.count("thread ends"), 2)
        self.assertEqual(recorder.calls.count("consumer ends"), 1)
        self.assertLess(
            recorder.calls.index("before shutdown"), recorder.calls.index("thread ends")
        )
        self.assertIn("after worker", recorder.calls)

    def test_a_running_worker_uses_middleware_that_is_added(self):
        self.start()
        self.note.send("before")
        self.wait_until_ran("before")
        recorder = HookRecorder()

        self.broker.add_middleware(recorder)
        self.note.send("after")

        self.wait_until_ran("before", "after")
        self.assertEqual(recorder.calls, ["note('after')"])


class BrokenText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("Not even its text can be made.")


class OwnBaseException(BaseException):
    pass


class FailureTests(WorkerMixin, SimpleTestCase):
    def test_no_exception_of_an_actor_ends_a_worker(self):
        errors = [
            ValueError("x"),
            SystemExit(1),
            KeyboardInterrupt(),
            GeneratorExit(),
            StopIteration(),
            MemoryError(),
            RecursionError(),
            asyncio.CancelledError(),
            TimeLimitExceeded(),
            OwnBaseException(),
            BrokenText(),
            BaseExceptionGroup("x", [SystemExit()]),
        ]

        def fail(number: int) -> None:
            raise errors[number]

        actor = self.declare(fail, actor_name="fail", max_retries=0)
        with silence():
            worker = self.start(worker_threads=2)
            actor.send_many([(number,) for number in range(len(errors))])
            wait_until(lambda: len(self.broker.dead_letters) == len(errors))
            self.note.send("alive")
            self.wait_until_ran("alive")

        dead = {type(each.exception) for each in self.broker.dead_letters}
        self.assertEqual(dead, {type(error) for error in errors})
        self.assertTrue(all(thread.is_alive() for thread in worker.threads))

    def test_a_shutdown_an_actor_makes_up_only_puts_its_message_back(self):
        raised: list[int] = []

        def fail_once() -> None:
            if not raised:
                raised.append(1)
                raise Shutdown
            self.ran.append("again")

        self.declare(fail_once, actor_name="fail").send()

        with silence():
            self.start()

            self.wait_until_ran("again")

    def test_a_hook_that_fails_ends_no_worker(self):
        class Failing(Middleware):
            def before_process_message(self, broker: Any, message: Any) -> None:
                raise SystemExit

        self.broker.add_middleware(Failing())
        with silence():
            worker = self.start(worker_threads=1)
            self.note.send("one")
            self.note.send("two")
            wait_until(lambda: len(self.broker.dead_letters) == 2)

        self.assertTrue(worker.threads[0].is_alive())


class StopTests(WorkerMixin, SimpleTestCase):
    def test_what_runs_is_finished_and_what_waits_goes_back_as_it_came(self):
        def block_and_note() -> None:
            self.door.stand()
            self.ran.append("finished")

        self.declare(block_and_note, actor_name="block").send()
        worker = self.start(worker_threads=1)
        self.door.wait()
        self.note.send_many([(name,) for name in "abc"])
        stopping = begin(worker.stop)
        wait_until(lambda: self.ready() == 3)
        self.assertTrue(stopping.is_alive())

        self.door.open()
        stopping.result()

        self.assertEqual(self.ran, ["finished"])
        self.assertEqual(self.broker.queue_size("default"), (3, 0))
        consumer = self.broker.consume(["default"], owner="next")
        self.addCleanup(consumer.close)
        self.assertFalse(any(each.redelivered for each in consumer.fetch(3, timeout=0)))

    def test_nothing_is_claimed_after_it(self):
        worker = self.start()
        worker.stop()

        self.note.send("Ada")

        self.assertFalse(worker.intake.is_alive() or worker.dispatcher.is_alive())
        self.assertEqual((self.ready(), self.ran), (1, []))

    def test_all_threads_end(self):
        before = set(threading.enumerate())
        worker = self.start()
        self.assertGreater(len(threading.enumerate()), len(before))

        worker.stop()

        wait_until(lambda: set(threading.enumerate()) <= before)

    def test_stopping_twice_or_before_the_start_does_nothing(self):
        worker = self.start()
        worker.stop()
        worker.stop()

        Worker(self.broker).stop()

    def test_what_is_delayed_stays_in_the_waiting_room(self):
        worker = self.start()
        self.note.send_with_options(args=("later",), delay=600_000)

        worker.stop()

        self.assertEqual(len(self.broker.room.rows), 1)

    def test_when_the_time_is_over_python_code_is_interrupted_and_its_message_goes_back(self):
        interrupted = threading.Event()

        def loop_until_interrupted() -> None:
            self.door.reached.release()
            try:
                loop()
            except Shutdown:
                interrupted.set()
                raise

        self.declare(loop_until_interrupted, actor_name="loop").send()
        worker = self.start()
        self.door.wait()

        with silence():
            worker.stop(timeout=10)

        self.assertTrue(interrupted.is_set())
        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_what_blocks_is_given_back_while_it_still_runs(self):
        self.enterContext(mock.patch.object(worker, "LAST_CALL_S", 0.05))
        self.declare(self.door.stand, actor_name="block").send()
        stopped = self.start()
        self.door.wait()

        with self.assertLogs("django_actors.worker", "WARNING") as logs:
            stopped.stop(timeout=10)

        self.assertIn("while it still ran", logs.output[0])
        self.assertEqual(self.broker.queue_size("default"), (1, 0))
        self.door.open()
        for thread in stopped.threads:
            thread.join(TIMEOUT_S)
        self.assertEqual(self.broker.queue_size("default"), (1, 0))
        self.assertEqual(stopped.gate.inside, 0)

    def test_who_wants_to_know_is_told_at_once(self):
        told = threading.Event()

        def loop_until_told() -> None:
            self.door.reached.release()
            try:
                loop()
            except Shutdown:
                told.set()
                raise

        self.declare(loop_until_told, actor_name="loop", notify_shutdown=True).send()
        worker = self.start()
        self.door.wait()

        with silence():
            worker.stop(timeout=60_000)

        self.assertTrue(told.is_set())
        self.assertEqual(self.broker.queue_size("default"), (1, 0))

    def test_who_is_told_may_come_to_its_end(self):
        def finish_when_told() -> None:
            self.door.reached.release()
            try:
                loop()
            except Shutdown:
                self.ran.append("finished")

        self.declare(finish_when_told, actor_name="loop", notify_shutdown=True).send()
        worker = self.start()
        self.door.wait()

        worker.stop(timeout=60_000)

        self.assertEqual(self.ran, ["finished"])
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    def test_who_does_not_want_to_know_is_left_to_finish(self):
        def block_and_note() -> None:
            self.door.stand()
            self.ran.append("finished")

        self.declare(block_and_note, actor_name="block").send()
        worker = self.start()
        self.door.wait()
        stopping = begin(worker.stop)
        wait_until(lambda: worker.dispatcher.draining)

        self.door.open()
        stopping.result()

        self.assertEqual(self.ran, ["finished"])
        self.assertEqual(self.broker.queue_size("default"), (0, 0))


class PauseTests(WorkerMixin, SimpleTestCase):
    def test_it_returns_when_nothing_runs_any_more(self):
        self.declare(self.door.stand, actor_name="block").send()
        worker = self.start()
        self.door.wait()
        pausing = begin(worker.pause)
        self.assertTrue(pausing.is_alive())

        self.door.open()
        pausing.result()

        self.assertEqual(worker.gate.inside, 0)

    def test_nothing_starts_until_the_worker_is_resumed(self):
        worker = self.start()
        worker.pause()
        self.note.send("Ada")
        wait_until(lambda: self.claimed() == 1)
        self.assertEqual(self.ran, [])

        worker.resume()

        self.wait_until_ran("Ada")

    def test_a_paused_worker_can_be_stopped(self):
        worker = self.start()
        worker.pause()
        self.note.send("Ada")
        wait_until(lambda: self.claimed() == 1)

        begin(worker.stop).result()

        self.assertEqual(self.ran, [])
        self.assertEqual(self.broker.queue_size("default"), (1, 0))


class TimeLimitTests(WorkerMixin, SimpleTestCase):
    def test_python_code_is_interrupted(self):
        def loop_stubbornly() -> None:
            try:
                loop()
            except Exception:
                self.ran.append("swallowed")

        self.declare(loop_stubbornly, actor_name="loop", time_limit=50, max_retries=0).send()

        with silence():
            worker = self.start()
            wait_until(lambda: self.broker.dead_letters)
            self.note.send("next")
            self.wait_until_ran("next")

        self.assertIsInstance(self.broker.dead_letters[0].exception, TimeLimitExceeded)
        self.assertFalse(worker.done.is_set())

    def test_who_catches_it_and_returns_in_time_has_succeeded(self):
        def catch() -> None:
            try:
                loop()
            except TimeLimitExceeded:
                self.ran.append("caught")

        self.declare(catch, actor_name="catch", time_limit=50).send()

        with silence():
            self.start()
            self.wait_until_ran("caught")
            self.broker.join("default", timeout=10_000)

        self.assertEqual(self.broker.dead_letters, [])

    def test_a_thread_stuck_in_a_blocking_call_is_given_up(self):
        neighbour = Door()

        def run_beside() -> None:
            neighbour.stand()
            self.ran.append("neighbour")

        stuck = self.declare(self.door.stand, actor_name="stuck", time_limit=50, max_retries=0)
        beside = self.declare(run_beside, actor_name="beside")
        with silence(), override_settings(DJANGO_ACTORS={"TIME_LIMIT_GRACE": 50}):
            self.use(self.broker)
            worker = self.start(worker_threads=2)
            beside.send()
            stuck.send()
            neighbour.wait()
            self.door.wait()
            self.note.send_many([(name,) for name in "ab"])

            wait_until(worker.done.is_set, "the worker to ask for its replacement")
            wait_until(lambda: self.ready() == 2, "the others to be put back")
            [dead] = wait_until(lambda: self.broker.dead_letters)
            neighbour.open()
            wait_until(lambda: self.broker.queue_size("default") == (2, 0))

        self.assertEqual(worker.done_reason, "stuck")
        self.assertEqual(self.ran, ["neighbour"])
        self.assertEqual(dead.reason, Reason.TIME_LIMIT)
        self.assertIsInstance(dead.exception, TimeLimitExceeded)

    def test_a_stuck_thread_that_comes_back_settles_nothing_twice(self):
        stuck = self.declare(self.door.stand, actor_name="stuck", time_limit=50, max_retries=0)
        with silence(), override_settings(DJANGO_ACTORS={"TIME_LIMIT_GRACE": 50}):
            self.use(self.broker)
            worker = self.start(worker_threads=1)
            stuck.send()
            wait_until(worker.done.is_set, "the worker to ask for its replacement")
            wait_until(lambda: not worker.is_busy)

            self.door.open()
            worker.threads[0].join(TIMEOUT_S)

        self.assertEqual(len(self.broker.dead_letters), 1)
        self.assertEqual(self.broker.queue_size("default"), (0, 0))
        self.assertEqual(worker.gate.inside, 0)

    def test_a_stuck_message_with_retries_left_is_retried(self):
        stuck = self.declare(
            self.door.stand, actor_name="stuck", time_limit=50, min_backoff=600_000
        )
        with silence(), override_settings(DJANGO_ACTORS={"TIME_LIMIT_GRACE": 50}):
            self.use(self.broker)
            worker = self.start(worker_threads=1)
            stuck.send()
            wait_until(worker.done.is_set, "the worker to ask for its replacement")
            wait_until(lambda: not worker.is_busy)

        [row] = self.broker.room.rows.values()
        self.assertEqual((row.kind, row.reason), (Kind.SCHEDULED, Reason.RETRY))


class EndTests(WorkerMixin, SimpleTestCase):
    """When a worker asks for the end of its process."""

    def test_after_a_number_of_messages(self):
        worker = self.start(max_messages=3)
        self.note.send_many([(1,), (2,)])
        wait_until(lambda: len(self.ran) == 2)
        self.assertFalse(worker.done.is_set())

        self.note.send_many([(3,), (4,)])

        wait_until(worker.done.is_set)
        self.assertEqual(worker.done_reason, "max_messages")

    def test_in_a_burst_when_nothing_is_left(self):
        self.note.send_many([(number,) for number in range(50)])

        worker = self.start(burst=True)
        wait_until(worker.done.is_set)

        self.assertEqual(worker.done_reason, "burst")
        self.assertEqual(len(self.ran), 50)
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    def test_in_a_burst_what_is_due_runs_as_well(self):
        self.note.send_with_options(args=("due",), delay=50)
        wait_until(lambda: self.broker.waiting_room.wait_ms() == 0)

        worker = self.start(burst=True)
        wait_until(worker.done.is_set)

        self.assertEqual(self.ran, ["due"])

    def test_a_burst_does_not_end_while_something_runs(self):
        self.declare(self.door.stand, actor_name="block").send()
        worker = self.start(burst=True)
        self.door.wait()
        self.assertFalse(worker.done.wait(0.25))

        self.door.open()

        wait_until(worker.done.is_set)

    def test_without_a_burst_an_idle_worker_stays(self):
        worker = self.start()
        self.note.send("Ada")
        self.wait_until_ran("Ada")
        self.wait_until_settled(worker)

        self.assertFalse(worker.done.is_set())

    def test_the_first_reason_is_the_one_that_counts(self):
        worker = Worker(self.broker)

        worker.ask_to_end("stuck")
        worker.ask_to_end("burst")

        self.assertEqual(worker.done_reason, "stuck")


class BoardTests(WorkerMixin, SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="django_actors_worker_")
        self.addCleanup(directory.cleanup)
        self.board = Board.create(Path(directory.name, "board"), threads=2)
        self.addCleanup(self.board.close)

    def test_it_shows_who_works_and_what_runs(self):
        sent = self.declare(self.door.stand, actor_name="block", time_limit=60_000).send()
        worker = self.start(board=self.board)
        self.door.wait()

        [running] = self.board.running()

        self.assertEqual(self.board.owner, worker.owner)
        self.assertEqual(running.message_id, sent.message_id)
        assert running.deadline is not None
        self.assertAlmostEqual(running.deadline, time.monotonic() + 60, delta=20)

    def test_what_is_done_is_noted_until_it_is_acknowledged(self):
        self.note.send("Ada")
        self.start(board=self.board)

        wait_until(lambda: len(self.board.receipts()) == 1)

        self.assertEqual(self.board.running(), [])

    def test_what_failed_is_not_noted_as_done(self):
        def fail() -> None:
            raise ValueError

        self.declare(fail, actor_name="fail", max_retries=0).send()
        with silence():
            self.start(board=self.board)
            wait_until(lambda: self.broker.dead_letters)

        self.assertEqual((self.board.running(), self.board.receipts()), ([], []))

    def test_what_has_successors_is_not_noted_as_done(self):
        self.declare(lambda *args: None, actor_name="second")
        self.declare(lambda: None, actor_name="first", on_success="second").send()

        worker = self.start(board=self.board)
        self.broker.join("default", timeout=10_000)
        self.wait_until_settled(worker)

        # Only the second one: the first is done when that one is sent.
        self.assertEqual(len(self.board.receipts()), 1)


class SuspectTests(WorkerMixin, EngineCase):
    """A message that has killed its worker runs alone."""

    def make_broker(self) -> RemoteBroker:
        return RemoteBroker()

    def test_a_suspect_has_no_neighbours(self):
        inside: list[int] = []
        workers: list[Worker] = []

        def count_neighbours() -> None:
            wait_until(lambda: workers)
            inside.append(workers[0].gate.inside)

        suspect = self.declare(count_neighbours, actor_name="bad")
        message = suspect.message()
        self.redeliver(message)
        crashes.count([message.message_id], overdue=(), detail="died", alias="default")
        nap = self.declare(lambda: time.sleep(0.005), actor_name="nap")
        nap.send_many([()] * 30)

        workers.append(self.start(worker_threads=4))
        self.broker.join("default", timeout=20_000)

        self.assertEqual(inside, [1])

    def redeliver(self, message: Message) -> None:
        """Put a message into the queue that a dead worker had claimed."""
        self.broker.publish([envelop(message)])
        self.broker.consume(["default"], owner="dead").fetch(1, timeout=0)
        self.broker.release("dead", done=())

    def test_the_worker_of_a_suspect_goes_on_with_the_others(self):
        message = self.note.message("suspect")
        self.redeliver(message)
        crashes.count([message.message_id], overdue=(), detail="died", alias="default")
        self.start(worker_threads=2)
        wait_until(lambda: self.ran == ["suspect"])

        self.note.send("next")

        self.wait_until_ran("suspect", "next")
        wait_until(lambda: not crashes.find([message.message_id], "default"))


class DatabaseTests(WorkerMixin, EngineCase):
    """The same on the database broker, with a database under all of it."""

    def make_broker(self) -> DatabaseBroker:
        return DatabaseBroker()

    def wait_until_empty(self) -> None:
        wait_until(lambda: not QueuedMessage.objects.exists(), "the queue to be empty")

    def test_messages_run_and_leave_nothing_behind(self):
        worker = self.start()
        self.note.send_many([(number,) for number in range(100)])

        wait_until(lambda: len(self.ran) == 100)
        self.wait_until_empty()
        worker.stop()

        self.assertEqual(sorted(self.ran), list(range(100)))
        self.assertEqual((WaitingMessage.objects.count(), Lease.objects.count()), (0, 0))

    def test_two_workers_run_every_message_once(self):
        self.note.send_many([(number,) for number in range(150)])

        self.start()
        self.start()

        self.wait_until_empty()
        self.assertEqual(sorted(self.ran), list(range(150)))

    def test_an_idle_worker_hears_of_a_message_at_once(self):
        worker = self.start(worker_timeout=1_000)
        self.note.send("first")
        self.wait_until_ran("first")
        self.wait_until_settled(worker)

        self.note.send("second")

        self.wait_until_ran("first", "second")

    def test_a_message_committed_with_its_senders_work_runs(self):
        self.start()

        with transaction.atomic():
            self.note.send("committed")
            self.assertEqual(self.ran, [])

        self.wait_until_ran("committed")

    def test_a_message_sent_by_an_actor_runs(self):
        def send_on() -> None:
            with transaction.atomic():
                self.note.send("sent on")

        self.declare(send_on, actor_name="send_on").send()

        self.start()

        self.wait_until_ran("sent on")

    def test_a_successor_runs_though_nobody_else_writes_to_the_database(self):
        self.declare(lambda message, result: self.ran.append(result), actor_name="second")
        first = self.declare(lambda: 42, actor_name="first", on_success="second")
        worker = self.start()
        self.note.send("warm")
        self.wait_until_ran("warm")
        self.wait_until_settled(worker)

        first.send()

        self.wait_until_ran("warm", 42)

    def test_a_failure_is_retried_and_at_last_a_dead_letter(self):
        def fail() -> None:
            raise ValueError("No such name.")

        sent = self.declare(fail, actor_name="fail", max_retries=2, min_backoff=10).send()

        with silence():
            self.start()
            letters = WaitingMessage.objects.filter(kind=Kind.DEAD)
            wait_until(letters.exists)

        letter = letters.get()
        self.assertEqual((letter.message_id, letter.attempts), (sent.message_id, 3))
        self.assertEqual(letter.reason, Reason.RETRIES_EXHAUSTED)
        self.assertEqual(letter.error, "No such name.")
        self.wait_until_empty()

    def test_a_retry_takes_little_more_than_its_wait(self):
        moments: list[float] = []

        def fail_once() -> None:
            moments.append(time.monotonic())
            if len(moments) == 1:
                raise ValueError

        flaky = self.declare(fail_once, actor_name="flaky", min_backoff=100, max_backoff=100)
        with silence():
            self.start()
            flaky.send()
            wait_until(lambda: len(moments) == 2)

        self.assertLess(moments[1] - moments[0], 2)

    def test_delayed_messages_run_in_the_order_of_their_time(self):
        due_ms = clock.now_ms() + 200
        self.note.send_with_options(args=("second",), eta=due_ms + 1)
        self.note.send_with_options(args=("first",), eta=due_ms)
        wait_until(lambda: clock.now_ms() > due_ms + 2)

        self.start(worker_threads=1)

        self.wait_until_ran("first", "second")

    def test_what_was_not_begun_goes_back_when_it_stops(self):
        self.declare(self.door.stand, actor_name="block").send()
        worker = self.start(worker_threads=1)
        self.door.wait()
        self.note.send_many([(name,) for name in "abc"])
        stopping = begin(worker.stop)
        wait_until(lambda: self.broker.queue_size("default") == (3, 1))

        self.door.open()
        stopping.result()

        self.assertEqual(self.broker.queue_size("default"), (3, 0))
        self.assertEqual(set(QueuedMessage.objects.values_list("redeliveries", flat=True)), {0})

    @needs_server
    def test_a_restart_of_the_database_loses_nothing(self):
        block = self.declare(self.door.stand, actor_name="block")
        with silence():
            self.start(worker_threads=3)
            block.send()
            self.door.wait()
            self.note.send("before")
            self.wait_until_ran("before")

            self.cut_connections()
            connections.close_all()
            self.door.open()
            self.note.send("after")

            wait_until(lambda: "after" in self.ran)
            self.wait_until_empty()

    @needs_server
    def test_a_failure_during_a_restart_of_the_database_is_retried(self):

        def fail_once() -> None:
            self.door.stand()
            if len(self.ran) == 0:
                self.ran.append("failed")
                raise ValueError
            self.ran.append("again")

        flaky = self.declare(fail_once, actor_name="flaky", min_backoff=10, max_backoff=10)
        with silence():
            self.start(worker_threads=1)
            flaky.send()
            self.door.wait()

            self.cut_connections()
            connections.close_all()
            self.door.open()

            self.wait_until_ran("failed", "again")
            self.wait_until_empty()

    @needs_server
    def test_what_comes_again_after_a_restart_of_the_database_runs_and_is_not_buried(self):
        with silence():
            self.start(worker_threads=1)
            self.broker.publish([envelop(self.note.message("before"))])
            self.wait_until_ran("before")
            self.use_connection_of_the_thread()

            self.cut_connections()
            connections.close_all()
            self.redeliver(self.note.message("again"))

            wait_until(lambda: "again" in self.ran)
        self.assertEqual(WaitingMessage.objects.count(), 0)

    def use_connection_of_the_thread(self) -> None:
        """Have the worker's thread open a connection, by looking something up."""
        self.redeliver(self.note.message("looked up"))
        wait_until(lambda: "looked up" in self.ran)

    def redeliver(self, message: Message) -> None:
        envelope = envelop(message)
        QueuedMessage.objects.create(
            queue_name="default",
            message_id=message.message_id,
            body=envelope.body,
            redeliveries=1,
            enqueued_ms=0,
        )

    def test_the_crash_of_a_neighbour_process_is_looked_up_by_who_gets_its_message(self):
        message = self.note.message("killer")
        self.redeliver(message)
        for _ in range(3):
            crashes.count([message.message_id], overdue=(), detail="died", alias="default")

        with silence():
            self.start()
            letters = WaitingMessage.objects.filter(kind=Kind.DEAD)
            wait_until(letters.exists)

        self.assertEqual(letters.get().reason, Reason.KILLED_WORKER)
        self.assertEqual(self.ran, [])
