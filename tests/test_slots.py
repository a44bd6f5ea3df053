"""A place for one run, open to interrupts from other threads."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from django.test import SimpleTestCase

from django_actors.delivery import Delivery, Fate
from django_actors.errors import Interrupt, Shutdown, TimeLimitExceeded
from django_actors.executor import Abandoned
from django_actors.slots import WorkerSlot, raise_in_thread

from .engine import begin, deliver, make_message, wait_until


class FakeBoard:
    """A board that notes what is written on it."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def begin(self, slot: int, message_id: str, deadline: float | None) -> None:
        self.written.append(("begin", slot, message_id, deadline))

    def end(self, slot: int, receipt: str | None = None) -> None:
        self.written.append(("end", slot, receipt))


def make_board() -> Any:
    return FakeBoard()


class SlotCase(SimpleTestCase):
    def setUp(self) -> None:
        self.board = make_board()
        self.slot = WorkerSlot(3, self.board)
        self.delivery = deliver(make_message("work"))


class RunTests(SlotCase):
    def test_it_knows_what_it_runs(self):
        self.assertIsNone(self.slot.delivery)

        self.slot.begin(self.delivery)
        self.assertIs(self.slot.delivery, self.delivery)

        self.slot.end(self.delivery)
        self.assertIsNone(self.slot.delivery)

    def test_the_board_shows_what_runs_and_until_when(self):
        self.delivery.deadline = 12.5

        self.slot.begin(self.delivery)

        self.assertEqual(self.board.written, [("begin", 3, self.delivery.message_id, 12.5)])

    def test_the_board_shows_it_until_it_is_settled(self):
        self.slot.begin(self.delivery)
        self.slot.end(self.delivery)
        self.assertEqual(len(self.board.written), 1)

        self.delivery.fate = Fate.DONE
        self.slot.settle(self.delivery, "receipt")

        self.assertEqual(self.board.written[1:], [("end", 3, "receipt")])

    def test_only_what_may_be_erased_without_a_trace_leaves_its_receipt(self):
        successor = (make_message("next"),)
        for fate, successors, receipt in (
            (Fate.DONE, (), "r"),
            (Fate.SKIPPED, (), "r"),
            (Fate.DONE, successor, None),
            (Fate.RETRY, (), None),
            (Fate.DEAD, (), None),
            (Fate.POSTPONED, (), None),
            (Fate.PUT_BACK, (), None),
        ):
            with self.subTest(fate=fate, successors=successors):
                self.delivery.fate, self.delivery.successors = fate, successors

                self.slot.settle(self.delivery, "r")

                self.assertEqual(self.board.written[-1], ("end", 3, receipt))

    def test_without_a_board_it_works_as_well(self):
        slot = WorkerSlot(0, None)

        slot.begin(self.delivery)
        slot.end(self.delivery)
        slot.settle(self.delivery, "receipt")
        slot.begin(self.delivery)

        self.assertTrue(slot.abandon(self.delivery))

    def test_one_slot_runs_one_message_after_the_other(self):
        other = deliver(make_message("other"))

        for delivery in (self.delivery, other, self.delivery):
            self.slot.begin(delivery)
            self.assertIs(self.slot.delivery, delivery)
            self.slot.end(delivery)


class DeadlineTests(SlotCase):
    def test_it_is_overdue_when_its_deadline_is_over(self):
        now = time.monotonic()
        for deadline, grace, overdue in (
            (now - 1, 0.0, True),
            (now + 60, 0.0, False),
            (now - 1, 5.0, False),
            (now - 6, 5.0, True),
            (None, 0.0, False),
        ):
            with self.subTest(deadline=deadline, grace=grace):
                self.delivery.deadline = deadline
                self.slot.begin(self.delivery)

                found = self.slot.is_overdue(grace=grace)

                self.assertIs(found, self.delivery if overdue else None)

    def test_a_slot_that_runs_nothing_is_not_overdue(self):
        self.delivery.deadline = time.monotonic() - 1
        self.slot.begin(self.delivery)
        self.slot.end(self.delivery)

        self.assertIsNone(self.slot.is_overdue())


class InterruptTests(SlotCase):
    def run_until_interrupted(self) -> Any:
        """Run an endless actor in a thread; it returns what was raised in it."""

        def run() -> Any:
            self.slot.begin(self.delivery)
            raised = None
            try:
                while True:
                    time.sleep(0)
            except Interrupt as interrupt:
                raised = type(interrupt)
            self.slot.end(self.delivery)
            return raised

        task = begin(run)
        wait_until(lambda: self.slot.delivery is self.delivery)
        return task

    def test_it_is_raised_in_the_thread_that_runs_the_message(self):
        for interrupt in (TimeLimitExceeded, Shutdown):
            with self.subTest(interrupt=interrupt):
                task = self.run_until_interrupted()

                self.assertTrue(self.slot.interrupt(self.delivery, interrupt))

                self.assertIs(task.result(), interrupt)

    def test_it_is_raised_once_only(self):
        task = self.run_until_interrupted()

        answers = [self.slot.interrupt(self.delivery, Shutdown) for _ in range(3)]

        self.assertEqual(answers, [True, False, False])
        self.assertIs(task.result(), Shutdown)

    def test_the_next_message_can_be_interrupted_again(self):
        for _ in range(3):
            task = self.run_until_interrupted()
            self.assertTrue(self.slot.interrupt(self.delivery, Shutdown))
            self.assertIs(task.result(), Shutdown)

    def test_another_message_than_the_one_that_runs_is_not_interrupted(self):
        other = deliver(make_message("other"))
        self.assertFalse(self.slot.interrupt(self.delivery, Shutdown))

        self.slot.begin(other)
        self.assertFalse(self.slot.interrupt(self.delivery, Shutdown))
        self.slot.end(other)
        self.assertFalse(self.slot.interrupt(other, Shutdown))

    def test_an_interrupt_that_comes_while_the_message_ends_is_taken_back(self):
        may_end, ended = threading.Event(), []

        def run() -> str:
            self.slot.begin(self.delivery)
            may_end.wait(30)
            while True:
                try:
                    self.slot.end(self.delivery)
                    break
                except Interrupt:
                    # As the executor does: it came before end() could look.
                    continue
            ended.append(True)
            # Were it still pending, it would be raised here.
            for _ in range(1_000):
                time.sleep(0)
            return "calm"

        task = begin(run)
        wait_until(lambda: self.slot.delivery is self.delivery)
        # As the watchdog does, while the thread waits for the lock in end().
        with self.slot._lock:
            may_end.set()
            wait_until(lambda: _runs(task, WorkerSlot.end))
            self.slot._interrupted = True
            raise_in_thread(self.slot._thread_id, TimeLimitExceeded)

        self.assertEqual(task.result(), "calm")
        self.assertIsNone(self.slot.delivery)


def _runs(task: threading.Thread, function: Any) -> bool:
    """Return whether *function* is what a thread executes just now."""
    frame = sys._current_frames().get(task.ident or 0)
    return frame is not None and frame.f_code is function.__code__


class AbandonTests(SlotCase):
    def test_a_delivery_can_be_taken_from_a_thread_that_does_not_come_back(self):
        self.slot.begin(self.delivery)

        self.assertTrue(self.slot.abandon(self.delivery))

        self.assertIsNone(self.slot.delivery)
        self.assertEqual(self.board.written[-1], ("end", 3, None))

    def test_the_thread_is_told_when_it_comes_back_after_all(self):
        self.slot.begin(self.delivery)
        self.slot.abandon(self.delivery)

        with self.assertRaises(Abandoned):
            self.slot.end(self.delivery)

    def test_a_thread_that_was_interrupted_and_then_abandoned_is_told_too(self):
        may_end = threading.Event()

        def run() -> None:
            self.slot.begin(self.delivery)
            try:
                may_end.wait(30)
            finally:
                while True:
                    try:
                        self.slot.end(self.delivery)
                    except Interrupt:
                        continue

        task = begin(run)
        wait_until(lambda: self.slot.delivery is self.delivery)
        self.slot.interrupt(self.delivery, TimeLimitExceeded)
        self.slot.abandon(self.delivery)
        may_end.set()

        with self.assertRaises(Abandoned):
            task.result()

    def test_what_has_ended_cannot_be_taken(self):
        self.slot.begin(self.delivery)
        self.slot.end(self.delivery)

        self.assertFalse(self.slot.abandon(self.delivery))
        self.assertFalse(self.slot.abandon(Delivery(b"", queue_name="default")))

    def test_it_can_be_taken_once_only(self):
        self.slot.begin(self.delivery)

        self.assertEqual([self.slot.abandon(self.delivery) for _ in range(2)], [True, False])
