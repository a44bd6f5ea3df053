"""
Copies of this process: a child that is forked has loaded the project already.

Only the thread that forks is copied. What others hold at that moment, a lock or half of a
change, stays so in the child for ever. So ``why_not()`` is to be asked before each fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NoReturn

from . import logs

CRASHED = 1
# A thread that was joined may be in the list of the system for some moments more.
LAST_STEPS_S = 0.1
# arg_start and arg_end in /proc/self/stat, after the name; see proc(5).
ARGUMENTS = slice(45, 47)
# What the supervisor hears would be lost in a child that does not listen yet.
_HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}

_undoings: list[Callable[[], object]] = []


class ForkedProcess:
    """A child of this process; what ``subprocess.Popen`` is of a program."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, minus the signal's number if one ended it; None while it lives."""
        if self._exit_code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                # A library has asked for the ends of all children, and was told of this one.
                self._exit_code = CRASHED
            else:
                self._exit_code = os.waitstatus_to_exitcode(status) if pid else None
        return self._exit_code

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, signum: signal.Signals) -> None:
        # Until somebody has asked how it ended, its number is given to no other process.
        if self.poll() is None:
            os.kill(self.pid, signum)


@contextlib.contextmanager
def undone_in_children(undo: Callable[[], object]) -> Iterator[None]:
    """
    Have *undo* called in each child that is forked in the block, the last one first.

    It is for what only one process may have: a descriptor that tells others of our end, a lock,
    a signal handler.
    """
    _undoings.append(undo)
    try:
        yield
    finally:
        _undoings.remove(undo)


def why_not() -> str:
    """Return why this process cannot be copied safely now; an empty text if it can."""
    if sys.platform != "linux":
        return "only Linux has forks that libraries can be trusted with"
    names = [thread.name for thread in threading.enumerate() if not _is_harmless(thread)]
    if names:
        return f"there are other threads: {', '.join(names)}"
    if not logs.rest():
        return "nobody reads the log"
    if not _is_alone():
        return "a library has threads that Python does not know"
    return ""


def fork(run: Callable[[], object]) -> ForkedProcess:
    """
    Call *run* in a copy of this process, which ends with it.

    Raises:
        OSError: The system has no room for another process.
    """
    # The garbage collector of a child would touch, and so copy, what it shares with us.
    gc.freeze()
    logs.flush_streams()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        pid = os.fork()
        if pid == 0:
            _live(run, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ForkedProcess(pid)


def show_as(command: Sequence[str]) -> None:
    """Have others see *command* as what runs here, as far as there was room for what they saw."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = map(int, fields[ARGUMENTS])
    text = b"\0".join(map(os.fsencode, command))[: max(0, end - start - 1)]
    if start:
        # The system reads it from there; Python has a copy of its own.
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _is_harmless(thread: threading.Thread) -> bool:
    return thread is threading.current_thread() or thread.name == logs.WRITER


def _is_alone() -> bool:
    until = time.monotonic() + LAST_STEPS_S
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def _live(run: Callable[[], object], mask: Collection[int]) -> NoReturn:
    # The frames below are the supervisor's: nothing may ever return into them.
    try:
        _part_from_parent()
        # Not SIGINT and SIGHUP: the child says first what to do about them, see children.py.
        signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, signal.SIGINT, signal.SIGHUP})
        run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(CRASHED)


def _part_from_parent() -> None:
    while _undoings:
        _undoings.pop()()
    _read_nothing()
    # What the parent wants removed at its end is not for its children to remove.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def _read_nothing() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null:
        os.close(null)
