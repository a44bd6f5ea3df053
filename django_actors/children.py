"""
The child processes of the supervisor, seen from the parent.

A child is any command that takes the number of an open socket as its last argument, or
a function that takes the socket and runs in a copy of this process. It reads its
configuration there (the first JSON line) and answers with events:

    {"event": "ready"}                       it works from now on
    {"event": "failed", "error": "..."}      it could not boot; it exits by itself
    {"event": "recycle", "reason": "..."}    it wants to be replaced
    {"event": "recovered", "board": "..."}   a dead worker's board was dealt with

and may be sent ``{"event": "recover", "board": path, "detail": how it died}``.
SIGTERM asks it to stop; a second SIGTERM asks it to stop at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from .board import Board, Running
from .channel import Channel, Event
from .forking import fork, show_as, undone_in_children

# What a child may only hear once it has said what to do about it: Ctrl-C and a
# closing terminal go to the whole process group.
GROUP_SIGNALS = {signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class DeadBoard:
    """What a dead worker left behind, and how it died."""

    path: str
    detail: str


class Handle(Protocol):
    """A process, whichever way it was started."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Start = Callable[[socket.socket], Handle]


class Child:
    """One child process: its control channel, its board and what we want of it."""

    def __init__(self, index: int, process: Handle, channel: Channel, board: Board) -> None:
        self.index = index
        self.process = process
        self.channel = channel
        self.board = board
        self.generation = 0
        self.ready = False
        self.wants_out = False
        self.recovering: list[DeadBoard] = []
        self.kill_at: float | None = None
        self.cause = ""
        self.boot_error = ""
        self._late_since: dict[tuple[int, str], float] = {}
        self._condemned: set[tuple[int, str]] = set()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stopping(self) -> bool:
        return self.kill_at is not None

    @property
    def killed(self) -> bool:
        """Tell whether we killed it, and nobody else did."""
        return bool(self.cause)

    @property
    def exit_code(self) -> int | None:
        """Return None while it lives, minus the signal's number if one ended it."""
        return self.process.poll()

    def stop(self, *, within_s: float) -> None:
        """Ask for a graceful stop; :attr:`kill_at` is when patience ends."""
        if self.stopping:
            return
        self.kill_at = time.monotonic() + within_s
        self.process.terminate()

    def stop_at_once(self, *, within_s: float) -> None:
        """Ask a second time, with little patience."""
        self.kill_at = time.monotonic() + within_s
        self.process.terminate()

    def kill(self, cause: str) -> None:
        self.cause = self.cause or cause
        self.process.kill()

    def recover(self, dead: DeadBoard) -> bool:
        """Hand over a dead worker's board; return False if the child is gone."""
        event = {"event": "recover", "board": dead.path, "detail": dead.detail}
        if self.channel.send(event):
            self.recovering.append(dead)
            return True
        return False

    def forget_recovered(self, path: str) -> None:
        self.recovering = [dead for dead in self.recovering if dead.path != path]

    def overdue(self, *, grace_s: float, patience_s: float) -> list[Running]:
        """Return what has run past its deadline and grace for *patience_s* seconds."""
        # Patience is counted from when we saw it first. After the whole machine
        # stood still the child needs the chance to end its messages itself.
        now, seen = time.monotonic(), self._late_since
        late = {_identity(run): run for run in self.board.running() if _is_late(run, now - grace_s)}
        self._late_since = {identity: seen.get(identity, now) for identity in late}
        return [
            run for identity, run in late.items() if now - self._late_since[identity] >= patience_s
        ]

    def condemn(self, overdue: Sequence[Running]) -> None:
        """Kill it for messages that outran their time limit."""
        self._condemned = {_identity(run) for run in overdue}
        self.kill("was killed because a time limit was not honored")

    def write_verdict(self) -> None:
        """Prepare the dead child's board for who recovers it: overdue, to blame, or neither."""
        stopped_as_asked = self.stopping and (self.killed or (self.exit_code or 0) >= 0)
        for run in self.board.running():
            if _identity(run) in self._condemned:
                self.board.mark_overdue(run.slot)
            elif stopped_as_asked:
                self.board.end(run.slot)

    def left_something(self) -> bool:
        """Tell whether the dead child's board may hold claims, crashes or receipts."""
        if self.board.running():
            return True
        return self.exit_code != 0 and bool(self.board.owner)

    def how_it_died(self) -> str:
        return self.cause or describe_exit(self.exit_code or 0)

    def close(self) -> None:
        self.channel.close()
        self.board.close()


def start_child(
    start: Start,
    *,
    index: int,
    board: Board,
    config: Mapping[str, Any],
    dead_boards: Sequence[DeadBoard],
) -> Child:
    """
    Start a child and send it its configuration.

    Args:
        start: Starts the process, which gets the socket it is handed.

        config: What is the same for all children; JSON values.

    Raises:
        OSError: The process could not be started.
    """
    ours, theirs = socket.socketpair()
    with theirs, undone_in_children(ours.close):
        try:
            process = start(theirs)
        except BaseException:
            ours.close()
            raise
    child = Child(index, process, Channel(ours), board)
    child.recovering = list(dead_boards)
    child.channel.send(_configuration(child, config))
    return child


def spawned(command: Sequence[str]) -> Start:
    """Return what starts a program; the number of the socket is added to its arguments."""

    def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
        fd = theirs.fileno()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_module_path())}
        with _signals_blocked():
            return subprocess.Popen(
                [*command, str(fd)], pass_fds=(fd,), env=environment, stdin=subprocess.DEVNULL
            )

    return start


def forked(body: Callable[[socket.socket], object], command: Sequence[str]) -> Start:
    """Return what starts a copy of this process that does *body* and is shown as *command*."""

    def live(theirs: socket.socket) -> None:
        # "pkill -f runactors" is for the supervisor; a child that gets it too would hurry.
        show_as([*command, str(theirs.fileno())])
        body(theirs)

    return lambda theirs: fork(partial(live, theirs))


def worker_command() -> list[str]:
    """Return the command that runs a worker process with this interpreter."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as multiprocessing does
    # The child finds its modules through PYTHONPATH, which -E and -I would switch off.
    flags = [flag for flag in flags if flag not in ("-E", "-I", "-P")]
    return [sys.executable, *flags, "-P", "-m", "django_actors.process"]


def describe_exit(code: int) -> str:
    """Return "exited with code 3" or "was killed by signal 9 (SIGKILL)"."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"


def _identity(run: Running) -> tuple[int, str]:
    return run.slot, run.message_id


def _is_late(run: Running, now: float) -> bool:
    return run.deadline is not None and now > run.deadline


def _configuration(child: Child, config: Mapping[str, Any]) -> Event:
    return {
        **config,
        "index": child.index,
        "board": child.board.path,
        "dead_boards": [[dead.path, dead.detail] for dead in child.recovering],
        "supervisor": os.getpid(),
        "sys_path": _module_path(),
        "pythonpath": os.environ.get("PYTHONPATH"),
    }


def _module_path() -> list[str]:
    return [str(entry) for entry in sys.path]


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """
    Hold back the signals of the process group; a child inherits the block.

    Without it, Ctrl-C in the first milliseconds of a child would end it with a
    KeyboardInterrupt before it could say that it ignores the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
