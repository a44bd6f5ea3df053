"""
Real worker processes on the database of the test run, and a ledger they write.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from django.db import connection
from django.test import TransactionTestCase

from django_actors import set_broker
from django_actors.brokers import build_broker
from django_actors.errors import BrokerUnavailable
from tests.projects import end_group, is_alive

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 60.0


class Entry(NamedTuple):
    """A line of the ledger."""

    what: str
    key: str
    pid: int
    at: float


def database_url() -> str:
    """Return the URL of the database this test run uses."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    scheme = {"postgresql": "postgres", "mysql": "mysql"}[connection.vendor]
    login = ":".join(quote(str(settings[part] or ""), safe="") for part in ("USER", "PASSWORD"))
    place = f"{settings['HOST'] or '127.0.0.1'}:{settings['PORT'] or ''}".rstrip(":")
    return f"{scheme}://{login}@{place}/{settings['NAME']}"


class ProcessCase(TransactionTestCase):
    """
    Starts ``runactors`` on the test database, and reads what its actors wrote.

    A test class for another broker only sets ``broker_url``.
    """

    broker_url = "database://default"

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="django_actors_ledger_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.ledger_path = self.directory / "ledger"
        self.ledger_path.touch()
        self.database_url = database_url()
        self.broker = build_broker(self.broker_url)
        set_broker(self.broker)
        self.addCleanup(set_broker, None)
        self.addCleanup(self.broker.close)

    # ---- processes -------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        hidden = ("ACTORS_", "DATABASE_URL", "DJANGO_")
        shown = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
        return {
            **shown,
            "DATABASE_URL": self.database_url,
            "ACTORS_BROKER_URL": self.broker_url,
            "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
            "LEDGER": str(self.ledger_path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
            # What the engine is measured without; the tests themselves run with it.
            "PYTHONDEVMODE": "",
        }

    def start(self, *flags: object, processes: int = 1, threads: int = 8) -> Any:
        """Start ``runactors`` and wait until its workers are ready; it ends with the test."""
        before = self.log().count("ready for action")
        with (self.directory / "log").open("a") as log:
            command = [
                sys.executable,
                str(ROOT / "testproject" / "manage.py"),
                "runactors",
                f"--processes={processes}",
                f"--threads={threads}",
                *map(str, flags),
            ]
            process = subprocess.Popen(
                command, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        self.addCleanup(end_group, process)
        self.wait_until(
            lambda: self.log().count("ready for action") >= before + processes,
            "the workers to be ready",
        )
        return process

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def worker_pids(self) -> list[int]:
        """Return the ids of the worker processes that live, the newest last."""
        pattern = r"\[PID (\d+)\].*Worker process is ready"
        return [int(pid) for pid in re.findall(pattern, self.log()) if is_alive(int(pid))]

    def stop(self, process: Any, signum: int = signal.SIGTERM) -> int:
        """Send a signal to ``runactors`` and return its exit code."""
        process.send_signal(signum)
        return int(process.wait(TIMEOUT_S))

    # ---- the ledger ------------------------------------------------------------

    def ledger(self, what: str = "") -> list[Entry]:
        """Return the lines so far, or those of one kind."""
        lines = self.ledger_path.read_text().splitlines()
        entries = [line.split() for line in lines]
        found = [Entry(w, key, int(pid), float(at)) for w, key, pid, at in entries]
        return [entry for entry in found if what in ("", entry.what)]

    def times(self, what: str = "ran") -> Counter[str]:
        """Return how often each key was noted."""
        return Counter(entry.key for entry in self.ledger(what))

    def wait_for_keys(self, count: int, what: str = "ran", timeout: float = TIMEOUT_S) -> None:
        """Wait until so many different keys were noted."""
        self.wait_until(
            lambda: len(self.times(what)) >= count,
            f"{count} keys {what!r} in the ledger",
            timeout,
            step=0.05,
        )

    def wait_until(
        self,
        condition: Callable[[], Any],
        what: str,
        timeout: float = TIMEOUT_S,
        step: float = 0.01,
    ) -> float:
        """Wait for a state; return how many seconds it took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > timeout:
                self.fail(f"Waited in vain for {what}.\n{self.log()[-6_000:]}")
            time.sleep(step)
        return time.monotonic() - began

    def wait_until_settled(self, *queues: str) -> None:
        """Wait until nothing of the queues is ready or claimed."""
        names = queues or ("default",)

        def are_empty() -> bool:
            try:
                return not any(any(self.broker.queue_size(name)) for name in names)
            except BrokerUnavailable:
                # A busy server may answer the next time.
                return False

        self.wait_until(are_empty, "the queues to be empty", step=0.05)
