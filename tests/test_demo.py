"""The demo is the first thing people run: it must work, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from django.test import SimpleTestCase, tag

MANAGE = Path(__file__).resolve().parent.parent / "testproject" / "manage.py"
TIMEOUT_S = 90


@tag("processes")
class DemoTests(SimpleTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_demo_test_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def start_demo(self, *arguments):
        environment = {**os.environ, "TMPDIR": str(self.directory)}
        # The demo has settings of its own, also when it is started from a test run.
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        process = subprocess.Popen(
            [sys.executable, str(MANAGE), "demo", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def read_until(self, process, text):
        lines = []
        for line in process.stdout:
            lines.append(line)
            if text in line:
                return lines
        return self.fail(f"The demo ended before it said {text!r}:\n{''.join(lines)}")

    def read_to_end(self, process):
        """Return what is still said. This ends when no process is left that could say more."""
        watchdog = threading.Timer(TIMEOUT_S, os.killpg, [process.pid, signal.SIGKILL])
        watchdog.start()
        try:
            output = process.stdout.read()
            process.wait()
        finally:
            watchdog.cancel()
        return output

    def test_every_message_ends_as_planned(self):
        demo = self.start_demo("--exit-when-done")

        output = self.read_to_end(demo)

        self.assertEqual(demo.returncode, 0, output)
        self.assertRegex(output, r"There are \d+ words at '.*the-hare-and-the-tortoise/'")
        self.assertRegex(output, r"The longest word at '.*' is '\w+'")
        self.assertRegex(output, r"Retrying message '.*' in \d+ milliseconds")
        self.assertIn("6 of 7 messages have run.", output)
        self.assertRegex(output, r"Dead letter: .*the-lost-fable/")
        self.assertRegex(output, r"[5-9] dead letters, [23] error groups +http")
        self.assertRegex(output, r"[5-9] scheduled messages, retries among them +http")
        self.assertIn("Queues, of which 'newsletter' is paused", output)
        self.assertNotIn("Newsletter 1 is sent", output)
        self.assertRegex(output, r"Admin +http://127.0.0.1:\d+/admin/ +\(user admin, password .+\)")

    def test_ctrl_c_ends_the_demo_without_a_trace(self):
        demo = self.start_demo()
        self.read_until(demo, "Site and workers go on")

        os.killpg(demo.pid, signal.SIGINT)
        output = self.read_to_end(demo)

        self.assertEqual(demo.returncode, 0, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_sigterm_while_the_workers_boot_ends_the_demo_too(self):
        demo = self.start_demo()
        self.read_until(demo, "Two worker processes start")

        demo.terminate()
        output = self.read_to_end(demo)

        self.assertEqual(demo.returncode, 0, output)
        self.assertNotIn("Traceback", output)
        self.assertEqual(list(self.directory.iterdir()), [])
