"""Operators and dispatchers who reach for the same rows at the same moment."""

from __future__ import annotations

import threading
from unittest import mock

from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.test import TransactionTestCase

from django_actors.admin.bulk import Job, Progress
from django_actors.admin.operations import Requeue
from django_actors.brokers.database import DatabaseBroker
from django_actors.dispatcher import Dispatcher
from django_actors.models import DeadLetter, QueuedMessage, ScheduledMessage, WaitingMessage
from django_actors.waiting_room import WaitingRoom
from tests.engine import begin

from .cases import bury, greet, wait

ROWS = 40
TIMEOUT_S = 60


class RaceTests(TransactionTestCase):
    def together(self, *works):
        """Do *works* in threads that start at the same moment; return what they return."""
        start = threading.Barrier(len(works))

        def run(work):
            connection.ensure_connection()
            start.wait(TIMEOUT_S)
            return work()

        tasks = [begin(run, work) for work in works]
        return [task.result() for task in tasks]

    def test_two_operators_requeue_each_row_once(self):
        rows = [bury(greet.message(number)) for number in range(ROWS)]

        def requeue():
            return [m.message_id for row in rows for m in WaitingRoom().requeue([row])]

        first, second = self.together(requeue, requeue)

        self.assertCountEqual(first + second, [row.message_id for row in rows])

    def test_what_one_discards_the_other_does_not_requeue(self):
        rows = [bury(greet.message(number)) for number in range(ROWS)]
        room = WaitingRoom()

        discarded, requeued = self.together(
            lambda: [key for row in rows for key in room.discard([row])],
            lambda: [m.message_id for row in reversed(rows) for m in room.requeue([row])],
        )

        self.assertEqual(len(discarded) + len(requeued), ROWS)
        self.assertEqual(WaitingMessage.objects.count(), len(requeued))
        self.assertEqual(DeadLetter.objects.count(), 0)

    def test_a_locked_database_is_asked_again(self):
        rows = [bury(greet.message("Ada"))]
        user = get_user_model().objects.create_superuser("ada", password="x")
        progress = Progress(shown=1)
        job = Job(Requeue(), DeadLetter.objects.all(), form=None, progress=progress, user=user)
        answers = iter([OperationalError("database is locked"), None])
        requeue = WaitingRoom.requeue

        def requeue_later(*args, **kwargs):
            if error := next(answers):
                raise error
            return requeue(*args, **kwargs)

        with mock.patch.object(WaitingRoom, "requeue", requeue_later):
            over = job.run()

        self.assertTrue(over and job.finished)
        self.assertEqual(progress.done, len(rows))

    def test_a_cancelled_message_was_never_published(self):
        rows = [wait(greet.message(number), delay=-1) for number in range(ROWS)]
        room = WaitingRoom()
        dispatcher = Dispatcher(DatabaseBroker())

        cancelled, _ = self.together(
            lambda: [row.message_id for row in rows if room.discard([row])],
            lambda: [dispatcher.run_once() for _ in range(3)],
        )
        dispatcher.run_once()

        published = set(QueuedMessage.objects.values_list("message_id", flat=True))
        self.assertEqual(published & set(cancelled), set())
        self.assertEqual(len(published) + len(cancelled), ROWS)
        self.assertEqual(ScheduledMessage.objects.count(), 0)
