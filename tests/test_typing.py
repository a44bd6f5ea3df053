"""Type checkers know what an actor takes: they report its wrong calls, and no right one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from importlib.util import find_spec
from pathlib import Path

from django.test import SimpleTestCase, tag

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "tests" / "typing_samples" / "calls.py"


@tag("processes")
class TypeCheckerTests(SimpleTestCase):
    maxDiff = None

    def setUp(self) -> None:
        # A project of its own: neither the settings of this one nor its Django plugin.
        directory = tempfile.TemporaryDirectory(prefix="django_actors_typing_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def assert_wrong_lines_are_reported(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.directory,
            env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

        reported = set(re.findall(r"calls\.py:(\d+)(?::\d+)*(?:: | - )error", done.stdout))
        self.assertEqual({int(line) for line in reported}, wrong_lines(), done.stdout + done.stderr)

    @unittest.skipUnless(find_spec("mypy"), "mypy is in the extra [dev]")
    def test_mypy(self):
        self.assert_wrong_lines_are_reported(
            "mypy", "--strict", "--follow-imports=silent", "--config-file=", str(SAMPLE)
        )

    @unittest.skipUnless(find_spec("pyright"), "pyright is in the extra [types]")
    def test_pyright(self):
        self.assert_wrong_lines_are_reported(
            "pyright", f"--pythonpath={sys.executable}", str(SAMPLE)
        )


def wrong_lines() -> set[int]:
    lines = SAMPLE.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
