"""
The crew: the places for worker processes, and who is in them.

A slot has one child that works and, for a moment, a successor that boots. The crew
starts, promotes, retires and buries children and passes on what the dead ones left.
When and why is decided elsewhere: by supervisor.py (signals) and rollout.py (new code).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .board import Board
from .channel import Event
from .children import Child, DeadBoard, Start, forked, spawned, start_child
from .forking import undone_in_children, why_not

logger = logging.getLogger("django_actors.MainProcess")

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
QUICK_STOP_S = 1.0


@dataclass(frozen=True)
class Limits:
    """
    How long the supervisor waits, in seconds.

    Attributes:
        stop: From SIGTERM to SIGKILL: the shutdown timeout and a margin.

        grace: From a message's deadline to the end of its worker's own efforts.

        patience: How long the supervisor watches such a message before it kills.
    """

    stop: float = 35.0
    grace: float = 5.0
    patience: float = 5.0


# What a forked child does with its socket; it ends with it.
Body = Callable[[socket.socket], object]


class StartListener(Protocol):
    """Who wants to hear of worker processes that cannot start; must not keep the caller waiting."""

    def failed(self, number: int, deaths: int, detail: str) -> None: ...
    def started(self, number: int) -> None: ...


class Slot:
    """A place for one worker process."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.current: Child | None = None
        self.successor: Child | None = None
        self.replace = False
        self.finished = False
        self.failures = 0
        self.boot_code: int | None = None
        self.start_at = 0.0

    def children(self) -> list[Child]:
        return [child for child in (self.current, self.successor) if child]

    def needs_a_child(self) -> bool:
        if self.finished or time.monotonic() < self.start_at:
            return False
        if self.current is None:
            return True
        return self.successor is None and (self.replace or self.current.wants_out)

    def put(self, child: Child) -> None:
        if self.current is None:
            self.current = child
        else:
            self.successor = child

    def remove(self, child: Child) -> None:
        """Take *child* out; a successor takes the place of who worked there."""
        if child is self.current:
            self.current, self.replace = self.successor, False
        self.successor = None

    def back_off(self) -> float:
        """Put off the next start by 1, 2, 4 ... 30 seconds; return how long."""
        delay = min(FIRST_BACKOFF_S * 2.0 ** min(self.failures, 10), LONGEST_BACKOFF_S)
        self.failures += 1
        self.start_at = time.monotonic() + delay
        return delay

    def start_now(self) -> None:
        self.failures, self.start_at = 0, 0.0


class Crew:
    """
    All slots of one supervisor; used by its thread alone.

    Attributes:
        directory: Where boards are made; to be set before the first child starts.

        generation: Counts the versions of the code that children were started with.

        leaving: No child is started any more.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        processes: int,
        threads: int,
        config: Mapping[str, Any],
        limits: Limits,
        burst: bool,
        starts: StartListener | None = None,
        body: Body | None = None,
    ) -> None:
        self.directory = ""
        self.slots = [Slot(index) for index in range(processes)]
        self.retiring: list[Child] = []
        self.generation = 0
        self.ready_generation = -1
        self.failed_generation = -1
        self.leaving = False
        self._unassigned: list[DeadBoard] = []
        self._errors_shown: set[tuple[int, str]] = set()
        self._boards_made = 0
        self._spawn = spawned(command)
        self._fork = forked(body, command) if body else None
        self._threads = threads
        self._config = dict(config)
        self._limits = limits
        self._burst = burst
        self._starts = starts

    def children(self) -> list[Child]:
        """Return all living children, those on their way out included."""
        return [child for slot in self.slots for child in slot.children()] + self.retiring

    def fill_slots(self) -> None:
        """Start a child wherever one is missing and its time has come."""
        for slot in self.slots:
            if not self.leaving and slot.needs_a_child():
                self._start_in(slot)

    def read_events(self) -> None:
        for child in self.children():
            self._read_events_of(child)

    def bury_the_dead(self) -> None:
        """Notice who has ended, and free their slots."""
        for child in self.children():
            if child.exit_code is not None:
                # What it said last comes first: it may tell why it ended.
                self._read_events_of(child)
                self._bury(child)

    def hand_out_dead_boards(self) -> None:
        """
        Give what dead workers left to a living one.

        A sibling is faster than the replacement, which has to boot first; where there
        is no sibling, the replacement finds the boards in its configuration.
        """
        helpers = [child for child in self.children() if child.ready and not child.stopping]
        if not helpers:
            return
        # Who runs least is the least likely to hang.
        helper = min(helpers, key=lambda child: len(child.board.running()))
        self._unassigned = [dead for dead in self._unassigned if not helper.recover(dead)]

    def check_deadlines(self) -> None:
        """Kill the children that could not end a message whose time was over."""
        for child in self.children():
            late = child.overdue(grace_s=self._limits.grace, patience_s=self._limits.patience)
            if late and not child.killed:
                ids = ", ".join(run.message_id for run in late)
                logger.error("Killing PID %d: it does not end overdue message %s.", child.pid, ids)
                child.condemn(late)

    def kill_the_late(self) -> None:
        """Kill the children that were asked to stop and took too long."""
        now = time.monotonic()
        for child in self.children():
            if child.kill_at is not None and now >= child.kill_at and not child.killed:
                logger.warning("Killing PID %d: it did not stop in time.", child.pid)
                child.kill("was killed because it did not stop in time")

    def retire(self, child: Child) -> None:
        """Take a child out of its slot and ask it to stop."""
        self.slots[child.index].remove(child)
        self.retiring.append(child)
        child.stop(within_s=self._limits.stop)

    def stop(self) -> None:
        """Ask all to stop, and start no more."""
        self.leaving = True
        for child in self.children():
            child.stop(within_s=self._limits.stop)

    def stop_at_once(self) -> None:
        """Ask all a second time, and be impatient."""
        self.leaving = True
        for child in self.children():
            child.stop_at_once(within_s=QUICK_STOP_S)

    def is_done(self) -> bool:
        """Tell whether a burst is over: all ended by themselves and left nothing."""
        if not all(slot.finished for slot in self.slots) or self.children():
            return False
        # Somebody has to put back what the last one that died had claimed.
        self.slots[0].finished = not self._unassigned
        return self.slots[0].finished

    def boot_verdict(self) -> int | None:
        """Return the exit code of children of which none could boot; None if one may yet."""
        codes = [slot.boot_code for slot in self.slots]
        return codes[0] if self.ready_generation < 0 and None not in codes else None

    def next_due(self) -> float:
        """Return when something has to be done at the latest; ``time.monotonic()``."""
        now = time.monotonic()
        due = [math.inf]
        due += [child.kill_at for child in self.children() if child.kill_at and not child.killed]
        due += [slot.start_at for slot in self.slots if slot.start_at > now]
        return min(due)

    # Starting

    def _start_in(self, slot: Slot) -> None:
        try:
            slot.put(self._start(slot.index))
        except OSError as error:
            delay = slot.back_off()
            logger.error(
                "Worker process %d could not be started: %s. Trying again in %d s.",
                *(slot.index, error, delay),
            )
            self._tell_failed(slot, f"could not be started: {error}")

    def _start(self, index: int) -> Child:
        board = self._new_board()
        start, how = self._way_to_start()
        try:
            with undone_in_children(board.close), undone_in_children(self._forget_children):
                child = start_child(
                    start,
                    index=index,
                    board=board,
                    config=self._config,
                    dead_boards=self._unassigned,
                )
        except OSError:
            board.unlink()
            board.close()
            raise
        self._unassigned = []
        child.generation = self.generation
        logger.debug("Worker process %d was %s with PID %d.", index, how, child.pid)
        return child

    def _way_to_start(self) -> tuple[Start, str]:
        """Return how the next child is started, and what to say of it."""
        if self._fork is None:
            return self._spawn, "spawned"
        # A copy of this process has the code of its start.
        reason = why_not() if self.generation == 0 else "the code may be another one by now"
        return (self._spawn, f"spawned ({reason})") if reason else (self._fork, "forked")

    def _forget_children(self) -> None:
        """Close what only their parent may have: with it, they would not notice its end."""
        for child in self.children():
            child.close()

    def _new_board(self) -> Board:
        self._boards_made += 1
        # Those who tidy up temporary files may have found the directory too old.
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        path = os.path.join(self.directory, f"board-{self._boards_made}")
        return Board.create(path, threads=self._threads)

    # What children say

    def _read_events_of(self, child: Child) -> None:
        for event in child.channel.receive():
            handle = self._handlers.get(str(event.get("event")))
            if handle is not None:
                handle(self, child, event)

    def _on_ready(self, child: Child, event: Event) -> None:
        child.ready = True
        self.ready_generation = max(self.ready_generation, child.generation)
        logger.debug("Worker process %d with PID %d is ready.", child.index, child.pid)
        slot = self._slot_of(child)
        if slot is None:
            return
        slot.start_now()
        if self._starts is not None:
            self._starts.started(slot.index)
        if child is slot.successor and slot.current is not None:
            self.retire(slot.current)

    def _on_failed(self, child: Child, event: Event) -> None:
        error = str(event.get("error", "")).rstrip()
        child.boot_error = error.rpartition("\n")[2]
        shown = (child.generation, error)
        if shown not in self._errors_shown:
            self._errors_shown.add(shown)
            logger.error("Worker process %d could not boot.\n%s", child.index, error)

    def _on_recycle(self, child: Child, event: Event) -> None:
        reason = event.get("reason", "unknown")
        logger.info("Replacing worker process %d, PID %d (%s).", child.index, child.pid, reason)
        child.wants_out = True

    def _on_recovered(self, child: Child, event: Event) -> None:
        path = str(event.get("board"))
        child.forget_recovered(path)
        _unlink(path)

    _handlers: Mapping[str, Callable[[Crew, Child, Event], None]] = {
        "ready": _on_ready,
        "failed": _on_failed,
        "recycle": _on_recycle,
        "recovered": _on_recovered,
    }

    def _slot_of(self, child: Child) -> Slot | None:
        slot = self.slots[child.index]
        return slot if child in slot.children() else None

    # Death

    def _bury(self, child: Child) -> None:
        self._keep_what_it_left(child)
        slot = self._slot_of(child)
        if slot is None:
            self.retiring.remove(child)
        else:
            self._vacate(slot, child)
        child.close()

    def _keep_what_it_left(self, child: Child) -> None:
        # A board that is gone was recovered; only the news of it was lost.
        self._unassigned += [dead for dead in child.recovering if os.path.exists(dead.path)]
        child.write_verdict()
        if child.left_something():
            self._unassigned.append(DeadBoard(child.board.path, child.how_it_died()))
        else:
            child.board.unlink()

    def _vacate(self, slot: Slot, child: Child) -> None:
        worked_there = child is slot.current
        slot.remove(child)
        if self.leaving:
            return
        if self._burst and worked_there and child.exit_code == 0:
            slot.finished = slot.current is None
        elif child.ready:
            slot.start_now()
            logger.error("%s; it is replaced.", _obituary(child))
        else:
            self._note_failed_boot(slot, child)

    def _note_failed_boot(self, slot: Slot, child: Child) -> None:
        self.failed_generation = max(self.failed_generation, child.generation)
        slot.boot_code = child.exit_code
        delay = slot.back_off()
        logger.error("%s before it was ready; trying again in %d s.", _obituary(child), delay)
        self._tell_failed(slot, ": ".join(filter(None, (child.how_it_died(), child.boot_error))))

    def _tell_failed(self, slot: Slot, detail: str) -> None:
        if self._starts is not None:
            self._starts.failed(slot.index, slot.failures, detail)


def _obituary(child: Child) -> str:
    return f"Worker process {child.index}, PID {child.pid}, {child.how_it_died()}"


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
