"""
A real worker process on a real broker, for the few tests that need one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

from django_actors import clock
from django_actors.brokers import build_broker, set_broker
from django_actors.brokers.base import Broker
from django_actors.conf import SETTING_NAME, settings
from django_actors.errors import QueueJoinTimeout

_STEP_S = 0.02
_STOP_S = 15.0
_LOG_TAIL = 6_000


class RealWorker:
    """
    A running ``runactors``.

    Attributes:
        broker: What it reads, and what actors send to in the block.

        process: Its main process.
    """

    def __init__(self, broker: Broker, process: subprocess.Popen[bytes], log: Path) -> None:
        self.broker = broker
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def join(self, timeout: int = 30_000) -> None:
        """
        Wait until nothing is ready, running or waiting for its time in any queue.

        Args:
            timeout: Milliseconds.

        Raises:
            QueueJoinTimeout: the time was over first.

            RuntimeError: the worker has ended. Both show the end of its log.
        """
        deadline = time.monotonic() + timeout / clock.MS_PER_S
        while self._is_busy():
            if self.process.poll() is not None:
                raise RuntimeError(f"The worker ended by itself.\n{self.log[-_LOG_TAIL:]}")
            if time.monotonic() >= deadline:
                raise QueueJoinTimeout(
                    f"The worker was not done after {timeout} ms. A message that failed waits "
                    f"for its retry.\n{self.log[-_LOG_TAIL:]}"
                )
            time.sleep(_STEP_S)

    def _is_busy(self) -> bool:
        room = self.broker.waiting_room
        return any(
            any(self.broker.queue_size(name)) or room.has_waiting(name)
            for name in self.broker.get_declared_queues()
        )


@contextlib.contextmanager
def real_worker(
    broker: str | Mapping[str, Any] | None = None,
    *,
    threads: int = 2,
    timeout: int = 30_000,
) -> Iterator[RealWorker]:
    """
    Run ``runactors`` in processes of its own while a block sends, and wait until all is done.

    The processes use the test's database, so the test is a ``TransactionTestCase``, and an
    SQLite database is a file (``"TEST": {"NAME": ...}``).

    Args:
        broker: A value of the setting ``BROKER``; the project's own where it is ``None``.

        threads: How many messages run at the same time.

        timeout: Milliseconds from the end of the block until nothing may be left.

    Yields:
        The worker, with ``join()`` and ``log``.

    Raises:
        ImproperlyConfigured: another process cannot see what the test sees.

        QueueJoinTimeout: something was left when the time was over.
    """
    _check_databases()
    changed = {"BROKER": broker or settings.BROKER, "NAMESPACE": _namespace()}
    project = getattr(django_settings, SETTING_NAME, {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(override_settings(**{SETTING_NAME: {**project, **changed}}))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="django_actors_"))
        real = build_broker(settings.BROKER)
        stack.callback(real.close)
        set_broker(real)
        stack.callback(set_broker, None)
        real.flush_all()
        log = Path(directory, "log")
        process = _start(log, changed, threads)
        stack.callback(_stop, process)
        worker = RealWorker(real, process, log)
        yield worker
        worker.join(timeout)


def _check_databases() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            raise ImproperlyConfigured(
                "A worker process does not see what a TestCase writes, whose transaction is never "
                "committed. Use a TransactionTestCase, or with pytest django_db(transaction=True)."
            )
    for alias in {settings.DATABASE}:
        creation: Any = connections[alias].creation
        name = str(connections[alias].settings_dict["NAME"])
        if connections[alias].vendor == "sqlite" and creation.is_in_memory_db(name):
            raise ImproperlyConfigured(
                f"The test database {alias!r} is in the memory of this process, where a worker "
                f"process cannot see it. Set DATABASES[{alias!r}]['TEST'] = {{'NAME': <a file>}}."
            )


def _namespace() -> str:
    """Return a prefix that no other test process and no development server uses."""
    name = Path(str(connections[settings.DATABASE].settings_dict["NAME"])).stem
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{settings.NAMESPACE}_{name}")[:64]


def _start(log: Path, actors_settings: Mapping[str, Any], threads: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "django", "runactors", "--processes=1", f"--threads={threads}"]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=_environment(actors_settings),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _environment(actors_settings: Mapping[str, Any]) -> dict[str, str]:
    given = {
        "settings": os.environ[ENVIRONMENT_VARIABLE],
        "databases": {
            alias: str(connections[alias].settings_dict["NAME"]) for alias in connections
        },
        "actors": actors_settings,
    }
    return {
        **os.environ,
        ENVIRONMENT_VARIABLE: "django_actors.worker_settings",
        "DJANGO_ACTORS_TEST": json.dumps(given),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
