"""
What runs in a worker process: ``python -m django_actors.process <fd>``, or ``live()`` in a fork.

The supervisor starts it (see children.py) and talks to it over a socket. The main
thread sets up Django, starts the worker, and from then on only listens: to signals, to
the supervisor, to the worker, and to the memory it uses.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.db import connections

from . import garbage, logs
from .board import Board
from .channel import Channel, Doorbell, Event
from .children import GROUP_SIGNALS
from .memory import resident_megabytes
from .recoverer import Recoverer

if TYPE_CHECKING:
    from .worker import Worker

STOPPED, KILLED, NOT_BOOTABLE, BROKER_UNREACHABLE = 0, 1, 2, 3
ORPHAN_STOP_MS = 1_000
ORPHAN_EXIT_S = 4.0
QUICK_EXIT_S = 0.7
FAREWELL_S = 2.0
HURRIED_FAREWELL_S = 0.3
MEMORY_CHECK_S = 2.0
RECOVERY_PATIENCE_S = 5.0
ERROR_SIZE = 20_000
PR_SET_PDEATHSIG = 1


class Process:
    """One worker process, seen from its main thread."""

    def __init__(self, channel: Channel, config: Event) -> None:
        self.channel = channel
        self.config = config
        self.logger = logging.getLogger(f"django_actors.WorkerProcess({config['index']})")
        self.doorbell = Doorbell()
        self.recoverer = Recoverer(self._tell_recovered)
        self.exit_code = STOPPED
        self._stop_asked = False
        self._stopped = threading.Event()
        self._exit_at: float | None = None
        self._announced = False
        self._memory_at: float | None = None

    def run(self) -> int:
        """Work until the worker, the supervisor or the end of the supervisor says stop."""
        if not self._attempt(self._load_project):
            return self.exit_code
        self._recover_the_dead()
        # Until here SIGTERM simply ends the process: it has nothing to give back.
        with self.doorbell.recording([signal.SIGTERM]):
            if self._attempt(self._start_worker):
                self._work()
        return self.exit_code

    def _work(self) -> None:
        self.logger.info("Worker process is ready for action.")
        self.channel.send({"event": "ready"})
        while not self._is_over():
            self._step()

    def _step(self) -> None:
        self._wait()
        self._obey_supervisor()
        self._obey_signals()
        self._obey_worker()
        self._check_memory()

    # Booting

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except (Exception, SystemExit) as error:
            self._fail(error)
            return False
        return True

    def _load_project(self) -> None:
        if not apps.ready:
            # A fork has it from its parent; loggers would be configured once more.
            garbage.rest()
            django.setup()
            garbage.go_on()
        logs.setup(self.config["verbosity"])
        logs.protect_output()

    def _recover_the_dead(self) -> None:
        dead_boards: dict[str, str] = dict(self.config["dead_boards"])
        for path, detail in dead_boards.items():
            self.recoverer.add(path, detail)
        # What cannot be recovered now is tried again while the worker works.
        self.recoverer.wait_for(dead_boards, timeout=RECOVERY_PATIENCE_S)

    def _start_worker(self) -> None:
        from .brokers import get_broker
        from .worker import Worker

        broker = get_broker()
        broker.emit_after("process_boot")
        self.board = Board.open(self.config["board"])
        self.worker = Worker(
            broker,
            queues=self.config["queues"],
            worker_threads=self.config["threads"],
            board=self.board,
            max_messages=self.config["max_messages"],
            burst=self.config["burst"],
        )
        self.worker.start()
        threading.Thread(target=self._wait_for, args=(self.worker,), daemon=True).start()
        # What the start asked the database is answered; this thread asks no more.
        connections.close_all()
        self._limit_memory(self.config["max_memory"])

    def _wait_for(self, worker: Worker) -> None:
        worker.done.wait()
        self.doorbell.ring()

    def _fail(self, error: BaseException) -> None:
        from .errors import BrokerUnavailable

        unreachable = isinstance(error, BrokerUnavailable)
        self.exit_code = BROKER_UNREACHABLE if unreachable else NOT_BOOTABLE
        text = str(error) if unreachable else "".join(traceback.format_exception(error))
        self.channel.send({"event": "failed", "error": text[-ERROR_SIZE:]})

    # Listening

    def _wait(self) -> None:
        due = [at for at in (self._exit_at, self._memory_at) if at is not None]
        timeout = min(due, default=float("inf")) - time.monotonic()
        self.doorbell.wait([self.channel], timeout=timeout)

    def _obey_signals(self) -> None:
        for _signum in self.doorbell.take_signals():
            if self._is_orphan():
                # The system says what the channel says, or is about to say.
                continue
            if self._stop_asked:
                self._stop_at_once()
            else:
                self._stop(timeout_ms=self.config["shutdown_timeout"])

    def _obey_supervisor(self) -> None:
        for event in self.channel.receive():
            if event.get("event") == "recover":
                self.recoverer.add(event["board"], event["detail"])
        if self._is_orphan() and self._exit_at is None:
            self.logger.warning("The supervisor is gone; stopping.")
            self._exit_at = time.monotonic() + ORPHAN_EXIT_S
            self._stop(timeout_ms=ORPHAN_STOP_MS)

    def _is_orphan(self) -> bool:
        return self.channel.closed or os.getppid() != self.config["supervisor"]

    def _obey_worker(self) -> None:
        if not self.worker.done.is_set() or self._announced or self._stop_asked:
            return
        if self.worker.done_reason == "burst":
            self._stop(timeout_ms=self.config["shutdown_timeout"])
        else:
            self._ask_for_replacement(self.worker.done_reason)

    def _limit_memory(self, megabytes: int | None) -> None:
        if megabytes is None:
            return
        used = resident_megabytes()
        if used < megabytes:
            self._memory_at = time.monotonic() + MEMORY_CHECK_S
            return
        # Its successors would be too large as well, one after the other.
        self.logger.warning(
            "The process uses %d MB before it has run anything, so --max-memory %d is ignored.",
            *(used, megabytes),
        )

    def _check_memory(self) -> None:
        now = time.monotonic()
        if self._memory_at is None or now < self._memory_at:
            return
        self._memory_at = now + MEMORY_CHECK_S
        used = resident_megabytes()
        if used > self.config["max_memory"]:
            self._memory_at = None
            self.logger.info("The process uses %d MB of memory.", used)
            self._ask_for_replacement("max_memory")

    def _ask_for_replacement(self, reason: str) -> None:
        if not self._announced:
            self._announced = True
            self.channel.send({"event": "recycle", "reason": reason})

    def _tell_recovered(self, path: str) -> None:
        self.channel.send({"event": "recovered", "board": path})

    # Stopping

    @property
    def hurried(self) -> bool:
        """Tell whether somebody counts the seconds until this process is gone."""
        return self._exit_at is not None

    def _stop(self, *, timeout_ms: int) -> None:
        self._stop_asked = True
        self._memory_at = None
        self._in_background(lambda: self.worker.stop(timeout=timeout_ms))

    def _stop_at_once(self) -> None:
        """Give back what runs, without waiting for it, and end."""
        self.exit_code = KILLED
        self._exit_at = time.monotonic() + QUICK_EXIT_S
        self._in_background(self._release_claims)

    def _release_claims(self) -> None:
        broker, owner = self.worker.broker, self.worker.owner
        broker.release(owner, done=self.board.receipts())
        broker.waiting_room.release(owner)
        if self.worker.reporter is not None:
            self.worker.reporter.leave()

    def _in_background(self, stop: Callable[[], None]) -> None:
        """Stop in another thread: this one goes on listening; when it has stopped, end."""
        threading.Thread(target=self._run_to_the_end, args=(stop,), daemon=True).start()

    def _run_to_the_end(self, stop: Callable[[], None]) -> None:
        try:
            stop()
        except Exception:
            self.logger.exception("The worker did not stop cleanly.")
            self.exit_code = KILLED
        self._stopped.set()
        self.doorbell.ring()

    def _is_over(self) -> bool:
        if self._stopped.is_set():
            return True
        if self._exit_at is None or time.monotonic() < self._exit_at:
            return False
        self.exit_code = KILLED
        return True


def main() -> None:
    live(socket.socket(fileno=int(sys.argv[1])))


def forked_body() -> Callable[[socket.socket], None]:
    """Return what a forked process does; what it needs is imported here, once for all of them."""
    from . import worker  # noqa: F401

    return live


def live(control: socket.socket) -> None:
    """Be a worker process from here to its end."""
    channel = Channel.inherited(control)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    config = channel.wait()
    follow_to_death(config["supervisor"])
    adopt_environment(config)
    process = Process(channel, config)
    code = process.run()
    if channel.closed:
        # Nobody will read the boards or remove them any more.
        shutil.rmtree(os.path.dirname(config["board"]), ignore_errors=True)
    leave(code, hurried=process.hurried)


def follow_to_death(supervisor: int) -> None:
    """Get SIGTERM when the supervisor ends, on Linux; the channel's end says it everywhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        # It ended before we asked.
        os._exit(KILLED)


def adopt_environment(config: dict[str, Any]) -> None:
    """Look for modules where the supervisor does, and hide how we got here."""
    sys.path[:] = config["sys_path"]
    os.environ["DJANGO_SETTINGS_MODULE"] = config["settings"]
    os.environ.pop("PYTHONPATH", None)
    if config["pythonpath"] is not None:
        os.environ["PYTHONPATH"] = config["pythonpath"]


def leave(code: int, *, hurried: bool) -> None:
    """End the process with *code*, whatever its other threads do."""
    # A thread that is stuck in an actor would hold up the normal end for ever. What
    # libraries want to do last has a moment for it.
    guard = threading.Timer(HURRIED_FAREWELL_S if hurried else FAREWELL_S, os._exit, [code])
    guard.daemon = True
    guard.start()
    if code == STOPPED:
        atexit._run_exitfuncs()
    logs.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
