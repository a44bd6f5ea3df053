"""The gate that every run passes."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.test import SimpleTestCase

from django_actors.gate import Gate, GateClosed

from .engine import Task, begin, wait_until


class GateCase(SimpleTestCase):
    def setUp(self) -> None:
        self.gate = Gate()
        self.addCleanup(self.gate.close)
        self.entered: list[str] = []

    def come(self, name: str, *, alone: bool = False) -> Task:
        """Have somebody come to the gate, who is noted when let in."""

        def enter() -> None:
            self.gate.enter(alone=alone)
            self.entered.append(name)

        return begin(enter)

    def wait_at_gate(self, name: str, *, alone: bool = False) -> Task:
        """Have somebody come to the gate, and return when that one waits there."""
        task = self.come(name, alone=alone)
        wait_until(lambda: self.is_waiting(task), f"{name} to wait at the gate")
        return task

    def is_waiting(self, task: Task) -> bool:
        # A waiter of the condition variable is somebody who sleeps at the gate.
        waiters: Any = self.gate._changed._waiters  # type: ignore[attr-defined]
        return task.is_alive() and len(waiters) > 0


class OpenTests(GateCase):
    def test_many_may_be_inside(self):
        for name in "abc":
            self.come(name).result()

        self.assertEqual(self.gate.inside, 3)

    def test_who_leaves_is_counted_out(self):
        self.gate.enter()
        self.gate.enter()

        self.gate.leave()

        self.assertEqual(self.gate.inside, 1)


class PauseTests(GateCase):
    def test_it_returns_at_once_when_nobody_is_inside(self):
        begin(self.gate.pause).result()

        self.assertEqual(self.gate.inside, 0)

    def test_it_returns_when_the_last_one_has_left(self):
        self.gate.enter()
        self.gate.enter()
        pausing = begin(self.gate.pause)

        self.gate.leave()
        self.assertTrue(pausing.is_alive())
        self.gate.leave()

        pausing.result()
        self.assertEqual(self.gate.inside, 0)

    def test_nobody_gets_in_until_it_is_over(self):
        self.gate.pause()
        late = self.wait_at_gate("late")
        alone = self.wait_at_gate("alone", alone=True)
        self.assertEqual(self.entered, [])

        self.gate.resume()

        alone.result()
        self.gate.leave()
        late.result()
        self.assertCountEqual(self.entered, ["late", "alone"])

    def test_resuming_what_was_not_paused_changes_nothing(self):
        self.gate.resume()
        self.gate.enter()

        self.assertEqual(self.gate.inside, 1)


class AloneTests(GateCase):
    def test_a_suspect_waits_until_all_have_left(self):
        self.gate.enter()
        suspect = self.wait_at_gate("suspect", alone=True)

        self.gate.leave()

        suspect.result()
        self.assertEqual(self.gate.inside, 1)

    def test_nobody_gets_in_while_it_is_inside(self):
        self.come("suspect", alone=True).result()
        other = self.wait_at_gate("other")
        self.assertEqual(self.entered, ["suspect"])

        self.gate.leave()

        other.result()
        self.assertEqual(self.entered, ["suspect", "other"])

    def test_who_comes_after_a_waiting_suspect_does_not_overtake_it(self):
        self.gate.enter()
        suspect = self.wait_at_gate("suspect", alone=True)
        other = self.come("other")

        self.gate.leave()
        suspect.result()
        self.assertEqual(self.entered, ["suspect"])
        self.gate.leave()

        other.result()

    def test_two_suspects_go_one_after_the_other(self):
        first = self.come("first", alone=True)
        first.result()
        second = self.wait_at_gate("second", alone=True)
        self.assertEqual(self.gate.inside, 1)

        self.gate.leave()

        second.result()
        self.assertEqual(self.entered, ["first", "second"])

    def test_a_suspect_is_never_inside_with_anybody_else(self):
        together: list[int] = []

        def pass_through(alone: bool) -> None:
            for _ in range(30):
                self.gate.enter(alone=alone)
                if alone:
                    together.append(self.gate.inside)
                    time.sleep(0)
                    together.append(self.gate.inside)
                self.gate.leave()

        threads = [begin(pass_through, number % 3 == 0) for number in range(6)]
        for thread in threads:
            thread.result()

        self.assertEqual(set(together), {1})
        self.assertEqual(self.gate.inside, 0)


class ClosingTests(GateCase):
    def test_who_waits_is_turned_away(self):
        self.gate.pause()
        waiting = [self.wait_at_gate("a"), self.wait_at_gate("b", alone=True)]

        self.gate.close()

        for task in waiting:
            with self.assertRaises(GateClosed):
                task.result()
        self.assertEqual((self.entered, self.gate.inside), ([], 0))

    def test_who_comes_later_is_turned_away(self):
        self.gate.close()

        for alone in (False, True):
            with self.subTest(alone=alone), self.assertRaises(GateClosed):
                self.gate.enter(alone=alone)

    def test_who_is_inside_goes_on_and_leaves(self):
        self.gate.enter()

        self.gate.close()
        self.gate.leave()

        self.assertEqual(self.gate.inside, 0)

    def test_a_pause_does_not_outlive_the_gate(self):
        self.gate.enter()
        ready = threading.Event()

        def pause() -> None:
            ready.set()
            self.gate.pause()

        pausing = begin(pause)
        ready.wait(30)
        self.gate.close()

        pausing.result()
