"""Whoever watches a file hears that somebody has written to it, once, and of nothing else."""

from __future__ import annotations

import select
import sys
import tempfile
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from django_actors import file_events
from django_actors.file_events import FileEvents

LONG_MS = 20_000


class FileEventsTests(SimpleTestCase):
    def setUp(self) -> None:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(directory, "file")
        self.path.write_text("")
        self.events = FileEvents()
        self.addCleanup(self.events.close)

    def watch(self, *paths: Path) -> None:
        self.events.watch(map(str, paths))

    def test_a_write_is_heard_once(self):
        self.watch(self.path)
        self.assertFalse(self.events.take())

        self.path.write_text("news")

        self.assertTrue(self.events.take())
        self.assertFalse(self.events.take())

    def test_a_write_ends_the_sleep_of_who_waits_for_it(self):
        self.watch(self.path)
        poll = select.poll()
        poll.register(self.events.descriptors[0], select.POLLIN)
        self.assertEqual(poll.poll(0), [])

        self.path.write_text("news")

        self.assertEqual(len(poll.poll(LONG_MS)), 1)

    def test_another_file_in_the_same_place_is_not_heard_of(self):
        self.watch(self.path)

        self.path.with_name("other").write_text("news")

        self.assertFalse(self.events.take())

    def test_a_file_that_is_not_there_is_passed_over(self):
        self.watch(self.path.with_name("missing"), self.path)

        self.path.write_text("news")

        self.assertTrue(self.events.take())

    def test_to_watch_a_file_again_does_no_harm(self):
        self.watch(self.path)
        self.watch(self.path)

        self.path.write_text("news")

        self.assertTrue(self.events.take())
        self.assertEqual(len(self.events.descriptors), 1)

    def test_where_the_system_has_no_more_of_them_nothing_is_heard(self):
        with mock.patch.object(file_events, "_libc") as libc:
            libc.inotify_init1.return_value = -1
            self.watch(self.path)

        self.path.write_text("news")

        self.assertEqual(self.events.descriptors, ())
        self.assertFalse(self.events.take())

    def test_elsewhere_than_on_linux_nothing_is_heard(self):
        with mock.patch.object(sys, "platform", "darwin"):
            self.watch(self.path)

        self.assertEqual(self.events.descriptors, ())

    def test_who_is_closed_hears_nothing_and_may_be_closed_again(self):
        self.watch(self.path)
        self.events.close()

        self.path.write_text("news")
        self.events.close()

        self.assertFalse(self.events.take())
