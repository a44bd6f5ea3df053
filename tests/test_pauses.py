"""Which queues are paused, as their rows tell."""

from __future__ import annotations

from unittest import mock

from django.db import OperationalError
from django.test import TestCase

from django_actors import pauses
from django_actors.models import PausedQueue

from .engine import EngineCase

ALIAS = "default"


class PauseTests(TestCase):
    def test_a_queue_is_paused_until_it_is_resumed(self):
        self.assertTrue(pauses.pause("mail", by="ada", alias=ALIAS))
        self.assertEqual(pauses.read_names(ALIAS), {"mail"})

        self.assertTrue(pauses.resume("mail", alias=ALIAS))
        self.assertEqual(pauses.read_names(ALIAS), frozenset())

    def test_who_paused_first_is_kept(self):
        pauses.pause("mail", by="ada", alias=ALIAS)

        self.assertFalse(pauses.pause("mail", by="bob", alias=ALIAS))

        self.assertEqual(pauses.find(ALIAS)["mail"].paused_by, "ada")

    def test_a_queue_that_is_not_paused_cannot_be_resumed(self):
        self.assertFalse(pauses.resume("mail", alias=ALIAS))

    def test_workers_ask_with_one_query(self):
        with self.assertNumQueries(1):
            pauses.read_names(ALIAS)

    def test_a_database_that_is_away_is_not_taken_for_one_without_pauses(self):
        error = OperationalError("gone")
        with (
            mock.patch.object(pauses, "quoted_table", side_effect=error),
            self.assertRaises(OperationalError),
        ):
            pauses.read_names(ALIAS)


class MigrationTests(EngineCase):
    def test_before_the_migration_nothing_is_paused(self):
        with mock.patch.object(PausedQueue._meta, "db_table", "not_migrated_yet"):
            self.assertEqual(pauses.read_names(ALIAS), frozenset())
