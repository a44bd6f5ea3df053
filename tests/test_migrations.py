"""The migrations make the tables that the models describe."""

from __future__ import annotations

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import TestCase


class MigrationTests(TestCase):
    def test_no_change_of_a_model_lacks_its_migration(self):
        call_command("makemigrations", "django_actors", check=True, dry_run=True, verbosity=0)

    def test_there_is_one_last_migration(self):
        leaves = MigrationExecutor(connection).loader.graph.leaf_nodes("django_actors")

        self.assertEqual(len(leaves), 1)

    def test_the_indexes_are_there_by_which_the_engine_reads(self):
        with connection.cursor() as cursor:
            queued = connection.introspection.get_constraints(cursor, "django_actors_queuedmessage")
            waiting = connection.introspection.get_constraints(
                cursor, "django_actors_waitingmessage"
            )

        self.assertIn("actors_ready", queued)
        self.assertIn("actors_due", waiting)
