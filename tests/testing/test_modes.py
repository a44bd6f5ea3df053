"""
The suite of the sample project, run in every way in which people run tests.

The sample project has no settings for tests. Each of its tests says that it started empty, and
each leaves something behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import django
from django.test import SimpleTestCase

from tests.projects import ROOT, clean_environment

SAMPLE = Path(__file__).resolve().parent.parent / "sample_suite"
PLUGIN = "django_actors.pytest_plugin"
TESTS = 32
FUNCTIONS = 5

START_WITH = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    from django.core.management import execute_from_command_line
    execute_from_command_line(["manage.py", "test", *sys.argv[2:]])
"""


class SampleCase(SimpleTestCase):
    """Runs the tests of a copy of the sample project."""

    exit_code = 0

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="django_actors_sample_")
        self.addCleanup(directory.cleanup)
        # A copy: the databases of parallel processes are files beside the project.
        self.project = Path(directory.name, "project")
        shutil.copytree(SAMPLE, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        self.trace = Path(directory.name, "trace")

    def run_suite(self, *arguments: object, **environment: str) -> str:
        """Run the sample's suite, and return what was printed."""
        process = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.project,
            env={
                **clean_environment(),
                "DJANGO_SETTINGS_MODULE": "sample_settings",
                "PYTHONPATH": os.pathsep.join([str(ROOT), "."]),
                "PYTHONDEVMODE": "",
                "SAMPLE_TRACE": str(self.trace),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(process.returncode, self.exit_code, process.stdout)
        return process.stdout

    def run_pytest(self, *arguments: object, **environment: str) -> str:
        installed = {plugin.value for plugin in entry_points(group="pytest11")}
        plugin = () if PLUGIN in installed else ("-p", PLUGIN)
        options = ("-q", "-p", "no:cacheprovider", *plugin)
        return self.run_suite("-m", "pytest", *options, *arguments, **environment)


class ModeTests(SampleCase):
    def run_django(self, *arguments: object, **environment: str) -> None:
        output = self.run_suite("-W", "error", "-m", "django", "test", *arguments, **environment)
        self.assertIn(f"Ran {TESTS} tests", output)

    def run_parallel(self, method: str) -> None:
        script = self.project / "manage.py"
        script.write_text(START_WITH)
        output = self.run_suite("-W", "error", script, method, "--parallel=2", "--shuffle")
        self.assertIn(f"Ran {TESTS} tests", output)
        # On a busy machine the second process may come too late for any of the tests.
        self.assertIn(len(self.processes()), (1, 2))

    def processes(self) -> dict[str, str]:
        """Return in which processes the tests have run: their names, by their ids."""
        return dict(line.split() for line in self.trace.read_text().splitlines())

    def test_in_random_order(self):
        self.run_django("--shuffle")

    def test_in_reverse_order(self):
        self.run_django("--reverse")

    def test_with_the_runner_of_this_package(self):
        self.run_django(SAMPLE_RUNNER="django_actors.test.ActorsTestRunner")

    def test_in_forked_processes(self):
        self.run_parallel("fork")

        self.assertEqual(
            {name.split("-")[0] for name in self.processes().values()}, {"ForkPoolWorker"}
        )

    def test_in_spawned_processes(self):
        self.run_parallel("spawn")

        self.assertEqual(
            {name.split("-")[0] for name in self.processes().values()}, {"SpawnPoolWorker"}
        )

    if django.VERSION >= (6, 0):
        # Older versions of Django have no databases for these.
        def test_in_processes_of_a_fork_server(self):
            self.run_parallel("forkserver")

            self.assertEqual(
                {name.split("-")[0] for name in self.processes().values()},
                {"ForkServerPoolWorker"},
            )

    def test_by_pytest(self):
        self.assertIn(f"{TESTS + FUNCTIONS} passed", self.run_pytest())

    def test_by_pytest_in_several_processes(self):
        self.assertIn(f"{TESTS + FUNCTIONS} passed", self.run_pytest("-n2", "--dist=load"))

        # On a busy machine the second process may come too late for any of the tests.
        self.assertIn(len(self.processes()), (1, 2))


class ForgottenTests(SampleCase):
    """A project that makes forgotten messages an error is told which they are."""

    exit_code = 1

    def setUp(self) -> None:
        super().setUp()
        (self.project / "strict_settings.py").write_text(
            "from sample_settings import *\n"
            "DJANGO_ACTORS = {**DJANGO_ACTORS, 'TEST_FORGOTTEN': 'error'}\n"
        )
        (self.project / "test_shop.py").write_text(FORGETFUL)
        (self.project / "test_functions.py").unlink()

    def test_by_django(self):
        self.assert_told(self.run_suite("-m", "django", "test", **STRICT), times=3)

    def test_in_spawned_processes(self):
        (self.project / "manage.py").write_text(START_WITH)

        output = self.run_suite("manage.py", "spawn", "--parallel=2", **STRICT)

        self.assert_told(output, times=3)

    def test_by_pytest(self):
        output = self.run_pytest("--tb=short", **STRICT)

        self.assertIn("4 failed, 3 passed", output)

    def assert_told(self, output: str, times: int) -> None:
        self.assertEqual(output.count("assert_sent(note, 'Ada')\n"), times, output)
        self.assertIn("Ran 6 tests", output)
        self.assertIn(f"FAILED (failures={times})", output)


STRICT = {"DJANGO_SETTINGS_MODULE": "strict_settings"}

FORGETFUL = """
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from shop.tasks import note

# Nothing of django_actors.test is imported: these tests know nothing of actors.

class Forgetful:
    def test_forgets(self):
        note.send("Ada")

    def test_sends_nothing(self):
        pass

class SimpleTests(Forgetful, SimpleTestCase):
    pass

class PlainTests(Forgetful, TestCase):
    pass

class CommittedTests(Forgetful, TransactionTestCase):
    pass

def test_function():
    note.send("Ada")
"""
