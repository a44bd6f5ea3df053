"""The watcher: which edits are noticed, and how soon."""

from __future__ import annotations

import os
import queue
import tempfile
import time
from pathlib import Path

from django.test import SimpleTestCase

from django_actors.watch import Watcher, scan

TIMEOUT_S = 10


class WatchCase(SimpleTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_watch_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, name, text="x = 1\n"):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)


class WatcherTests(WatchCase):
    def setUp(self):
        super().setUp()
        self.tasks = self.write("shop/tasks.py")
        self.seen: queue.Queue[list[str]] = queue.Queue()
        self.watcher = Watcher(str(self.directory), self.seen.put)
        self.watcher.start()
        self.addCleanup(self.watcher.join)
        self.addCleanup(self.watcher.stop)

    def next_change(self):
        return self.seen.get(timeout=TIMEOUT_S)

    def test_an_edit_is_noticed_within_a_second(self):
        start = time.monotonic()

        self.write("shop/tasks.py", "x = 2\n")

        self.assertEqual(self.next_change(), [self.tasks])
        self.assertLess(time.monotonic() - start, 1.0)

    def test_an_edit_that_keeps_the_size_is_noticed(self):
        os.utime(self.tasks, ns=(1, 1))

        self.assertEqual(self.next_change(), [self.tasks])

    def test_a_file_that_replaces_another_is_noticed(self):
        before = os.stat(self.tasks)
        new = self.write("shop/new", "y = 1\n")
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))

        os.replace(new, self.tasks)

        self.assertEqual(self.next_change(), [self.tasks])

    def test_a_new_file_in_a_new_directory_is_noticed(self):
        path = self.write("blog/jobs/tasks.py")

        self.assertEqual(self.next_change(), [path])

    def test_a_removed_file_is_noticed(self):
        os.unlink(self.tasks)

        self.assertEqual(self.next_change(), [self.tasks])

    def test_a_change_is_told_once(self):
        self.write("shop/tasks.py", "x = 20\n")
        self.next_change()

        other = self.write("shop/models.py")

        self.assertEqual(self.next_change(), [other])

    def test_an_edit_between_the_making_and_the_start_is_noticed(self):
        seen: queue.Queue[list[str]] = queue.Queue()
        watcher = Watcher(str(self.directory), seen.put)
        self.write("shop/tasks.py", "x = 300\n")

        watcher.start()

        self.assertEqual(seen.get(timeout=TIMEOUT_S), [self.tasks])
        watcher.stop()
        watcher.join()


class ScanTests(WatchCase):
    def found(self):
        return sorted(os.path.relpath(path, self.directory) for path in scan(str(self.directory)))

    def test_only_python_sources_are_watched(self):
        for name in ("a.py", "b/c/d.py", "e.html", "f.pyc", "g.py.orig"):
            self.write(name)

        self.assertEqual(self.found(), ["a.py", "b/c/d.py"])

    def test_what_is_not_the_project_is_left_out(self):
        for directory in (".git", ".tox", "__pycache__", "web/node_modules/x", "env"):
            self.write(f"{directory}/module.py")
        self.write("env/pyvenv.cfg")
        self.write("shop/.#tasks.py")

        self.assertEqual(self.found(), [])

    def test_links_that_lead_nowhere_or_back_do_no_harm(self):
        self.write("shop/tasks.py")
        (self.directory / "shop/loop").symlink_to(self.directory)
        (self.directory / "shop/gone.py").symlink_to("nothing")

        self.assertEqual(self.found(), ["shop/tasks.py"])

    def test_a_directory_that_does_not_exist_is_empty(self):
        self.assertEqual(scan(str(self.directory / "nothing")), {})
