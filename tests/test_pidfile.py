"""The pid file: one owner at a time, whatever number stands in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from django.test import SimpleTestCase

from django_actors.pidfile import PidFileError, pid_file

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys
from django_actors.pidfile import pid_file

with pid_file(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


class PidFileTests(SimpleTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_pid_")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "workers.pid")

    def hold(self):
        """Start another process that holds the file until it is killed."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        assert holder.stdin and holder.stdout
        self.addCleanup(holder.stdin.close)
        with holder.stdout:
            self.assertEqual(holder.stdout.readline(), b"held\n")
        return holder

    def test_it_holds_our_number_as_long_as_we_run(self):
        with pid_file(str(self.path)):
            self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")

        self.assertFalse(self.path.exists())

    def test_a_running_owner_keeps_others_out_and_is_named(self):
        holder = self.hold()

        with self.assertRaisesMessage(PidFileError, f"Process {holder.pid} runs"):
            pid_file(str(self.path)).__enter__()

        self.assertEqual(self.path.read_text(), f"{holder.pid}\n")

    def test_the_file_of_a_killed_owner_is_taken_over(self):
        holder = self.hold()
        holder.kill()
        holder.wait()
        self.assertTrue(self.path.exists())

        with pid_file(str(self.path)):
            self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")

    def test_the_number_of_a_stranger_who_lives_means_nothing(self):
        self.path.write_text(f"{os.getppid()}\n")

        with pid_file(str(self.path)):
            self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")

    def test_a_file_that_others_made_in_our_place_is_left_alone(self):
        with pid_file(str(self.path)):
            self.path.unlink()
            self.path.write_text("another\n")

        self.assertEqual(self.path.read_text(), "another\n")

    def test_a_place_where_no_file_can_be_is_a_clear_error(self):
        with self.assertRaisesMessage(PidFileError, "cannot be opened"):
            pid_file(str(self.path / "below")).__enter__()
