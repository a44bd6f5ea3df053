"""What a dead worker process left behind: its claims go back, the guilty are blamed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from django.db import OperationalError

from django_actors import clock, crashes
from django_actors.board import Board
from django_actors.brokers.database import DatabaseBroker
from django_actors.models import Attempt, CrashRecord, Lease, Outcome, QueuedMessage
from django_actors.recovery import recover
from tests.brokers.contract import row_for
from tests.engine import EngineCase, envelop, make_message, report

DETAIL = "was killed by signal 9 (SIGKILL)"
LOGGER = "django_actors.recovery"


class RecoveryTests(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())
        directory = tempfile.TemporaryDirectory(prefix="django_actors_recovery_")
        self.addCleanup(directory.cleanup)
        self.board = Board.create(Path(directory.name, "board"), threads=4)
        self.addCleanup(self.board.close)
        self.board.owner = "dead"
        report("dead")

    def claim(self, count: int) -> list[str]:
        """Have the dead worker claim new messages, and return their ids."""
        messages = [make_message() for _ in range(count)]
        self.broker.publish([envelop(message) for message in messages])
        consumer = self.broker.consume(["default"], owner="dead")
        self.deliveries = consumer.fetch(count, timeout=1)
        return [message.message_id for message in messages]

    def recover(self) -> None:
        with self.assertLogs(LOGGER, "WARNING"):
            recover(self.broker, self.board, DETAIL)

    def queued(self) -> Sequence[str]:
        return list(
            QueuedMessage.objects.filter(claimed_by="").values_list("message_id", flat=True)
        )

    def crashed(self) -> dict[str, int]:
        return dict(CrashRecord.objects.values_list("message_id", "crashes"))

    def test_what_was_running_is_blamed_and_what_only_waited_there_is_not(self):
        running, waiting = self.claim(2)
        self.board.begin(0, running, None)

        self.recover()

        self.assertEqual(self.crashed(), {running: 1})
        self.assertEqual(CrashRecord.objects.get().detail, DETAIL)
        self.assertEqual(self.queued(), [running, waiting])
        line = Attempt.objects.get()
        self.assertEqual((line.message_id, line.outcome), (running, Outcome.CRASHED))
        self.assertEqual(line.error, DETAIL)
        self.assertLess(abs(clock.now_ms() - (line.began_ms or 0)), 60_000)

    def test_what_was_done_but_not_acknowledged_is_erased(self):
        done, waiting = self.claim(2)
        self.board.begin(0, done, None)
        self.board.end(0, self.broker.receipt_text(self.deliveries[0]))

        self.recover()

        self.assertEqual(self.crashed(), {})
        self.assertEqual(self.queued(), [waiting])
        self.assertEqual(QueuedMessage.objects.count(), 1)

    def test_of_a_process_that_was_ended_only_the_overdue_message_is_guilty(self):
        overdue, neighbour = self.claim(2)
        self.board.begin(0, overdue, time.monotonic())
        self.board.begin(1, neighbour, None)
        self.board.mark_overdue(0)

        self.recover()

        self.assertEqual(self.crashed(), {overdue: 0})
        self.assertTrue(CrashRecord.objects.get().overdue)
        # It is settled as a failure when it comes again, and has its line then.
        self.assertFalse(Attempt.objects.exists())

    def test_the_dead_leave_no_lease(self):
        self.claim(1)

        self.recover()

        self.assertEqual(Lease.objects.count(), 0)

    def test_due_messages_that_were_about_to_be_moved_are_due_again(self):
        room = self.broker.waiting_room
        room.put([row_for(make_message())])
        room.claim_due("dead", limit=1)

        self.recover()

        self.assertEqual(len(room.claim_due("me", limit=1, now=clock.now_ms() + 1)), 1)

    def test_a_process_that_died_before_it_had_a_name_had_claimed_nothing(self):
        self.claim(1)
        self.board.owner = ""

        self.recover()

        self.assertEqual(self.queued(), [])

    def test_the_guilty_are_known_before_anybody_can_have_them(self):
        [running] = self.claim(1)
        self.board.begin(0, running, None)
        order: list[str] = []

        with (
            mock.patch.object(
                self.broker, "release", side_effect=lambda *a, **k: order.append("release")
            ),
            mock.patch.object(crashes, "count", side_effect=lambda *a, **k: order.append("count")),
        ):
            self.recover()

        self.assertEqual(order, ["count", "release"])

    def test_a_recovery_that_failed_can_be_repeated(self):
        [running] = self.claim(1)
        self.board.begin(0, running, None)
        with (
            mock.patch.object(self.broker, "release", side_effect=OperationalError("Away.")),
            self.assertRaises(OperationalError),
        ):
            recover(self.broker, self.board, DETAIL)

        self.recover()

        self.assertEqual(self.queued(), [running])
        self.assertEqual(self.crashed(), {running: 1})

    def test_a_death_that_could_not_be_counted_is_counted_by_who_tries_again(self):
        [running] = self.claim(1)
        self.board.begin(0, running, None)
        with (
            mock.patch.object(crashes, "count", side_effect=OperationalError("Away.")),
            self.assertRaises(OperationalError),
        ):
            recover(self.broker, self.board, DETAIL)

        self.recover()

        self.assertEqual(self.crashed(), {running: 1})
