"""A contender with its workers running and a process that sends for it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from . import trees
from .bodies import HELD, MARKS, OPEN, SPENT
from .contenders import Contender, Crew
from .environment import ROOT, clean_environment
from .servers import Servers

TIMEOUT_S = 120.0
POLL_S = 0.02
# So many messages, one after the other, and nobody is still busy with what was before.
CALMING = 5
# How long the gates may take to be met before there are more of them.
PATIENCE_S = 0.3


class Failed(Exception):
    """A contender did not do what it was asked for; the text says what, and what it logged."""


class Contest:
    """
    Prepare a contender; use it as a context.

    Args:
        python: Of the environment with the peers.

        crew: The workers that ``start()`` starts.
    """

    def __init__(self, contender: Contender, python: Path, servers: Servers, crew: Crew) -> None:
        self.contender = contender
        self.crew = crew
        self._python = python
        self._url = servers.url(contender.broker, contender.module)
        self._database = servers.database(contender.broker, contender.module)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._gates: list[int] = []

    def __enter__(self) -> Contest:
        self._temporary = tempfile.TemporaryDirectory(prefix="django_actors_benchmark_")
        self.directory = Path(self._temporary.name)
        self._log: IO[bytes] = (self.directory / "log").open("ab")
        broker = "database://default" if self._database == self._url else self._url
        queue_type = self.contender.queue_type
        self._environment = clean_environment(
            BENCHMARK_BROKER=f"{broker}?queue_type={queue_type}" if queue_type else broker,
            BENCHMARK_DATABASE=self._database,
            BENCHMARK_DIRECTORY=str(self.directory),
            BENCHMARK_ENGINE=self.contender.module,
            BENCHMARK_QUEUE_TYPE=queue_type,
            BENCHMARK_URL=self._url,
            DJANGO_SETTINGS_MODULE="tests.benchmarks.speed.settings",
        )
        self._sender = self._start_sender()
        try:
            self.ask("prepare")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._end_sender()
        for gate in self._gates:
            os.close(gate)
        self._log.close()
        self._temporary.cleanup()

    def renew(self) -> None:
        """Have no workers, an empty queue, and a sender that knows nothing of what was before."""
        self.stop()
        self._end_sender()
        self.forget()
        self._sender = self._start_sender()
        self.ask("prepare")

    def forget(self) -> None:
        """Forget what the messages told so far."""
        for name in (MARKS, SPENT):
            (self.directory / name).unlink(missing_ok=True)

    def _start_sender(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._python, "-m", "tests.benchmarks.speed.sender", self.contender.module],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def _end_sender(self) -> None:
        self._sender.kill()
        # Closes the pipes, too.
        self._sender.communicate()

    def ask(self, command: str, **arguments: object) -> Any:
        """Have the sender do something; return its result."""
        assert self._sender.stdin is not None and self._sender.stdout is not None
        try:
            self._sender.stdin.write(json.dumps([command, arguments]) + "\n")
            self._sender.stdin.flush()
            answer = self._sender.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise self.failed(f"the sender ended at {command!r}")
        return json.loads(answer)

    def start(self) -> None:
        """Start the workers, if they do not run already."""
        for number in range(0 if self._workers else self.crew.copies):
            words = {
                "{number}": str(number),
                "{processes}": str(self.crew.processes),
                "{url}": self._url,
            }
            command = [_fill_in(part, words) for part in self.contender.command]
            self._workers.append(
                subprocess.Popen(
                    [self._python, *command],
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                )
            )

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def hold(self) -> None:
        """Start the workers; have a message in each of their slots that waits for ``open()``."""
        self.start()
        number = len(self._gates)
        os.mkfifo(self.directory / f"{OPEN}{number}")
        slots = self.crew.slots
        self.ask("gates", count=slots, number=number)
        held = f"{HELD}{number}"
        self.wait_until(lambda: len(self.lines(held)) > 0, "a worker that runs messages")
        seen, since = 0, time.monotonic()
        deadline = since + TIMEOUT_S
        while (busy := len(self.lines(held))) < slots:
            now = time.monotonic()
            if busy != seen:
                seen, since = busy, now
            elif now - since > PATIENCE_S:
                # A process may have claimed the gates of another, which was not there yet.
                self.ask("gates", count=slots, number=number)
                since = now
            if now > deadline:
                raise self.failed(f"only {busy} of {slots} slots were busy")
            time.sleep(POLL_S)

    def open(self) -> float:
        """Let them go; return when."""
        path = self.directory / f"{OPEN}{len(self._gates)}"
        now = time.monotonic()
        # It stays open, so that a gate that comes late does not wait.
        self._gates.append(os.open(path, os.O_RDWR))
        return now

    def calm(self) -> None:
        """Have all workers up and idle: each slot had a message, and what was sent has run."""
        self.hold()
        self.open()
        for number in range(CALMING):
            self.ask("fill", count=1, kind="mark", first=number)
            self.marks(number + 1)
        self.forget()

    def marks(self, count: int) -> dict[int, float]:
        """Wait until *count* different messages told when they ran; return when, by number."""
        self.wait_until(lambda: len(self.lines(MARKS)) >= count, f"{count} messages that ran")
        self.wait_until(lambda: len(self._read_marks()) >= count, f"{count} messages that ran")
        return self._read_marks()

    def _read_marks(self) -> dict[int, float]:
        marks: dict[int, float] = {}
        for line in self.lines(MARKS):
            number, moment, _ = line.split()
            marks.setdefault(int(number), float(moment))
        return marks

    def lines(self, name: str) -> list[str]:
        try:
            return (self.directory / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise self.failed(f"waited in vain for {what}")
            if any(worker.poll() is not None for worker in self._workers):
                raise self.failed("a worker ended")
            time.sleep(POLL_S)

    def failed(self, what: str) -> Failed:
        tail = (self.directory / "log").read_text(errors="replace").splitlines()[-15:]
        return Failed(f"{self.contender.title}: {what}\n" + "\n".join(tail))

    def stop(self) -> None:
        """End the workers at once: what they leave behind is emptied before the next start."""
        if self._workers:
            trees.end(self.pids)
        for worker in self._workers:
            worker.wait()
        self._workers = []


def _fill_in(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
