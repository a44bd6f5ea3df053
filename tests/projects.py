"""
A small project of its own for each test, and ``runactors`` in real processes on it.

Its database is a SQLite file in a temporary directory, so nothing here touches the
database of the test run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from django.test import SimpleTestCase, tag

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 20

MANAGE = """
import os, sys
sys.path.insert(1, {root!r})
os.environ["DJANGO_SETTINGS_MODULE"] = "project_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

SETTINGS = """
import os
from pathlib import Path

SECRET_KEY = "for these tests only"
INSTALLED_APPS = ["django_actors", "shop"]
USE_TZ = True
DJANGO_ACTORS = {"TIME_LIMIT_GRACE": 300}
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": Path(__file__).parent / "db.sqlite3",
    "OPTIONS": {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    },
}}
"""

TASKS = """
import os, time
from pathlib import Path
from django_actors import actor

JOURNAL = Path(__file__).parent.parent / "journal"
KEPT = []

def note(*words):
    with JOURNAL.open("a") as journal:
        journal.write(" ".join(map(str, (*words, os.getpid()))) + "\\n")

@actor
def greet(name):
    print("Hello,", name)
    note("old", name)

@actor
def nap(seconds):
    note("begin")
    time.sleep(seconds)
    note("end")

@actor
def eat(megabytes):
    KEPT.append(bytearray(megabytes * 1024 * 1024))
    note("ate")

@actor(time_limit=300, max_retries=0)
def block():
    note("block")
    time.sleep(60)
"""

SEND = """
import os, sys
sys.path[:0] = [{root!r}, {directory!r}]
os.environ["DJANGO_SETTINGS_MODULE"] = "project_settings"
import django
django.setup()
from shop.tasks import *
{code}
"""


@tag("processes")
class ProjectCase(SimpleTestCase):
    """Makes the project, starts ``runactors`` on it, and waits for what happens there."""

    template: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix="django_actors_project_")
        cls.addClassCleanup(directory.cleanup)
        cls.template = Path(directory.name, "template")
        write_project(cls.template)
        manage = [sys.executable, "manage.py", "migrate", "-v0"]
        subprocess.run(manage, cwd=cls.template, env=clean_environment(), check=True)

    def setUp(self) -> None:
        parent = tempfile.TemporaryDirectory(prefix="django_actors_project_")
        self.addCleanup(parent.cleanup)
        self.directory = Path(parent.name, "project")
        shutil.copytree(self.template, self.directory)
        self.tasks = self.directory / "shop" / "tasks.py"

    def run_actors(self, *flags: object, **environment: str) -> subprocess.Popen[str]:
        """Start the command; it and all its children are ended with the test."""
        with (self.directory / "log").open("a") as log:
            return self.start(log, *flags, **environment)

    def start(self, output: Any, *flags: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runactors", *map(str, flags)],
            cwd=self.directory,
            env={**clean_environment(), **environment},
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(end_group, process)
        return process

    def run_one(self, *flags: object, **environment: str) -> subprocess.Popen[str]:
        """Start the command with one process and wait until that is ready."""
        before = self.log().count("ready for action")
        process = self.run_actors("--processes", 1, "--threads", 2, *flags, **environment)
        self.wait_for_log("ready for action", before + 1)
        return process

    def send(self, code: str) -> None:
        script = SEND.format(root=str(ROOT), directory=str(self.directory), code=code)
        subprocess.run([sys.executable, "-c", script], env=clean_environment(), check=True)

    def journal(self) -> list[str]:
        try:
            return (self.directory / "journal").read_text().splitlines()
        except FileNotFoundError:
            return []

    def log(self) -> str:
        try:
            return (self.directory / "log").read_text()
        except FileNotFoundError:
            return ""

    def worker_pids(self) -> list[int]:
        """Return the process ids of all workers that were ever ready, in order."""
        pattern = r"\[PID (\d+)\].*Worker process is ready"
        return [int(pid) for pid in re.findall(pattern, self.log())]

    def wait_until(
        self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S
    ) -> float:
        """Wait for a state; return how many seconds it took."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() > start + timeout:
                self.fail(f"Waited in vain for {what}.\n{self.journal()}\n{self.log()}")
            time.sleep(0.01)
        return time.monotonic() - start

    def wait_for_log(self, text: str, count: int = 1) -> float:
        return self.wait_until(lambda: self.log().count(text) >= count, f"{text!r} in the log")

    def wait_for_note(self, text: str, count: int = 1) -> float:
        return self.wait_until(
            lambda: sum(line.startswith(text) for line in self.journal()) >= count,
            f"{count} times {text!r} in the journal",
        )

    def wait_for_end(self, process: subprocess.Popen[str]) -> int:
        self.wait_until(lambda: process.poll() is not None, "the end of runactors")
        return process.returncode

    def wait_for_death(self, pid: int) -> float:
        return self.wait_until(lambda: not is_alive(pid), f"the end of process {pid}")


def write_project(directory: Path) -> None:
    (directory / "shop").mkdir(parents=True)
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "tasks.py").write_text(TASKS)
    (directory / "project_settings.py").write_text(SETTINGS)
    (directory / "manage.py").write_text(MANAGE.format(root=str(ROOT)))


def clean_environment() -> dict[str, str]:
    """Return the environment without what the test run says about itself."""
    hidden = ("ACTORS_", "DATABASE_URL", "DJANGO_", "PYTHONPATH")
    return {name: text for name, text in os.environ.items() if not name.startswith(hidden)}


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a supervisor and its children; the hard way if they do not hurry."""
    # The children hear it twice, from here and from the supervisor: that is "at once".
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be buried does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # The second where it went between the opening and the reading.
        if os.path.exists("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
