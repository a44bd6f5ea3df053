"""
The supervisor: keeps the worker processes running.

It owns the main thread of ``runactors``, starts the children, restarts one that
dies, replaces them without a gap and stops them. It knows no broker and no model:
what a child does is a command line or a function, see children.py.

Signals are only recorded when they arrive. One loop of small steps looks at what is
(who is ready, who died, whose time has come) and moves it toward what should be.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from .board import board_directory
from .channel import Doorbell
from .crew import Body, Crew, Limits, StartListener
from .forking import undone_in_children
from .rollout import Rollout

logger = logging.getLogger("django_actors.MainProcess")

STOPPED, KILLED, NOT_BOOTABLE, BROKER_UNREACHABLE = 0, 1, 2, 3
FATAL_BOOT_CODES = (NOT_BOOTABLE, BROKER_UNREACHABLE)
TICK_S = 1.0
# A killed process that is still there waits for a disk; nobody can hurry it.
GIVE_UP_S = 0.5
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
# SIGCHLD only has to wake the loop, which looks at all children anyway.
SIGNALS = [*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD]


class Supervisor:
    """
    Runs worker processes until it is told to stop.

    Args:
        command: What a child is, see children.py.

        processes: How many, at least 1.

        threads: Slots of each child's board, at least 1.

        config: Sent to every child; JSON values.

        burst: Children end by themselves, and so does the supervisor.

        watching: Somebody calls :meth:`reload`. Then code that cannot be imported
            is no reason to end: the next edit may mend it.

        starts: Told of children that die before they are ready.

        body: What a child does that is a copy of this process. Without it, and where a copy
            is not safe or has old code, a child is the command.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        processes: int,
        threads: int,
        config: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        burst: bool = False,
        watching: bool = False,
        starts: StartListener | None = None,
        body: Body | None = None,
    ) -> None:
        self._crew = Crew(
            command,
            processes=processes,
            threads=threads,
            config=config or {},
            limits=limits or Limits(),
            burst=burst,
            starts=starts,
            body=body,
        )
        self._burst = burst
        self._watching = watching
        self._rollout: Rollout | None = None
        self._exit_code = STOPPED
        self._doorbell = Doorbell()
        self._reloads: deque[str] = deque()
        self._next_tick = time.monotonic()

    def run(self) -> int:
        """
        Work until stopped; call it once, in the main thread.

        Returns:
            0 stopped, 1 killed by a second signal, 2 the children cannot boot, 3 the
            broker could not be reached.
        """
        with (
            board_directory() as self._crew.directory,
            closing(self._doorbell),
            undone_in_children(self._doorbell.close),
            self._doorbell.recording(SIGNALS),
        ):
            while not self._is_over():
                self._step()
        return self._exit_code

    def reload(self, why: str) -> None:
        """Replace all children quickly, as after an edit; any thread may call it."""
        self._reloads.append(why)
        self._doorbell.ring()

    def _step(self) -> None:
        self._crew.fill_slots()
        self._wait()
        self._obey_signals()
        self._obey_reloads()
        self._crew.read_events()
        self._crew.bury_the_dead()
        self._crew.hand_out_dead_boards()
        self._advance_rollout()
        self._crew.kill_the_late()
        self._give_up_if_none_can_boot()
        self._tick()

    def _wait(self) -> None:
        """Wait for a signal, a reload, a child's word or end, or the next due time."""
        due = min(self._next_tick, self._crew.next_due())
        channels = [child.channel for child in self._crew.children()]
        self._doorbell.wait(channels, timeout=due - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            self._crew.check_deadlines()

    def _obey_signals(self) -> None:
        for signum in self._doorbell.take_signals():
            if signum == signal.SIGHUP:
                self._begin_rollout(signum.name, swift=False)
            elif signum in STOP_SIGNALS:
                self._stop(signum.name)

    def _obey_reloads(self) -> None:
        if self._reloads:
            why = self._reloads.popleft()
            self._reloads.clear()
            self._begin_rollout(why, swift=True)

    def _stop(self, why: str) -> None:
        if self._crew.leaving:
            logger.warning("Ending the worker processes at once (%s again).", why)
            self._exit_code = KILLED
            self._crew.stop_at_once()
        else:
            logger.info("Stopping the worker processes (%s).", why)
            self._rollout = None
            self._crew.stop()

    def _begin_rollout(self, why: str, *, swift: bool) -> None:
        if not self._crew.leaving:
            self._rollout = Rollout(self._crew, why, swift=swift)

    def _advance_rollout(self) -> None:
        if self._rollout is not None and self._rollout.advance():
            self._rollout = None

    def _is_over(self) -> bool:
        if self._crew.leaving:
            return all(_is_hopeless(child.kill_at) for child in self._crew.children())
        return self._burst and self._crew.is_done()

    def _give_up_if_none_can_boot(self) -> None:
        code = self._crew.boot_verdict()
        if code in FATAL_BOOT_CODES and not self._watching and not self._crew.leaving:
            self._exit_code = code
            self._crew.stop()


def _is_hopeless(kill_at: float | None) -> bool:
    return kill_at is not None and time.monotonic() > kill_at + GIVE_UP_S
