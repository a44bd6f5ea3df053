"""Claims: the first rows of a selection, each for one only; and the database's own time."""

from __future__ import annotations

import time
from unittest import mock

from django.db import DataError, OperationalError, connection, connections
from django.test import SimpleTestCase, TestCase

from django_actors import claims
from django_actors.claims import ClaimStatement, is_locked_out, now_ms_sql, retry_when_locked
from django_actors.models import QueuedMessage
from tests.engine import EngineCase, begin

statement = ClaimStatement(
    QueuedMessage,
    columns="id, queue_name, priority",
    where="claimed_by = '' AND queue_name = %s",
    order="priority, id",
    changes="claimed_by = %s, enqueued_ms = {now}",
)


def add(*priorities: int, queue: str = "a") -> None:
    QueuedMessage.objects.bulk_create(
        QueuedMessage(queue_name=queue, priority=priority, body=b"", enqueued_ms=0)
        for priority in priorities
    )


def claim(*queues: str, owner: str = "me", limit: int = 100) -> list[tuple[int, str, int]]:
    arms = [(queue,) for queue in queues]
    # Not the imported connection: each thread has one of its own.
    rows = statement.run(connections["default"], arms, set_params=(owner,), limit=limit)
    return sorted(rows, key=lambda row: (row[2], row[0]))


class ClaimTests(TestCase):
    def test_a_claim_changes_and_returns_rows(self):
        add(1)

        [(key, queue, priority)] = claim("a")

        row = QueuedMessage.objects.get()
        self.assertEqual((row.pk, row.queue_name, row.priority), (key, queue, priority))
        self.assertEqual(row.claimed_by, "me")
        self.assertGreater(row.enqueued_ms, 0)

    def test_the_first_rows_are_claimed_and_no_more_than_asked_for(self):
        add(3, 1, 2, 1)

        self.assertEqual([priority for _, _, priority in claim("a", limit=3)], [1, 1, 2])
        self.assertEqual([priority for _, _, priority in claim("a", limit=3)], [3])

    def test_the_first_rows_of_all_parts_are_claimed(self):
        add(5, 1, queue="a")
        add(2, 4, queue="b")
        add(3, queue="c")

        taken = claim("a", "b", "c", limit=3)

        self.assertEqual(
            [(queue, priority) for _, queue, priority in taken], [("a", 1), ("b", 2), ("c", 3)]
        )

    def test_rows_of_one_order_are_claimed_by_their_age(self):
        add(0, 0, 0)
        first = QueuedMessage.objects.order_by("pk").first()
        assert first is not None

        self.assertEqual(claim("a", limit=1)[0][0], first.pk)

    def test_where_nothing_is_there_nothing_is_claimed(self):
        add(1, queue="b")

        self.assertEqual(claim("a"), [])
        self.assertEqual(QueuedMessage.objects.filter(claimed_by="").count(), 1)


class RivalTests(EngineCase):
    def test_a_row_is_claimed_by_one_of_many(self):
        add(*range(200))

        tasks = [begin(self.claim_all, f"owner-{number}") for number in range(4)]
        taken = [key for task in tasks for key in task.result()]

        self.assertEqual(len(taken), 200)
        self.assertEqual(len(set(taken)), 200)

    def claim_all(self, owner: str) -> list[int]:
        taken: list[int] = []
        while QueuedMessage.objects.filter(claimed_by="").exists():
            try:
                taken += [key for key, _, _ in claim("a", owner=owner, limit=5)]
            except OperationalError as error:
                if not is_locked_out(error):
                    raise
        return taken


class ClockTests(TestCase):
    def test_the_database_tells_the_milliseconds_since_1970(self):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {now_ms_sql(connection)}")
            (now,) = cursor.fetchone()

        self.assertAlmostEqual(now, time.time() * 1_000, delta=60_000)

    def test_a_database_the_engine_does_not_know_is_named(self):
        oracle = mock.Mock(vendor="oracle")

        self.assertRaisesMessage(NotImplementedError, "not on oracle", now_ms_sql, oracle)


class LockedOutTests(SimpleTestCase):
    def test_what_a_database_says_when_one_should_try_again_is_known(self):
        for text in (
            "database is locked",
            "database table is locked: x",
            "deadlock detected",
            "Deadlock found when trying to get lock; try restarting transaction",
            "Lock wait timeout exceeded; try restarting transaction",
            "could not serialize access due to concurrent update",
        ):
            with self.subTest(text):
                self.assertTrue(is_locked_out(OperationalError(text)))

    def test_other_errors_are_none_to_try_again(self):
        self.assertFalse(is_locked_out(OperationalError("server closed the connection")))
        self.assertFalse(is_locked_out(DataError("locked")))
        self.assertFalse(is_locked_out(ValueError("locked")))


class LockedTests(SimpleTestCase):
    """A database that is locked is asked again; everything else is not."""

    def setUp(self) -> None:
        self.connection = mock.Mock(in_atomic_block=False)
        self.enterContext(mock.patch.object(time, "sleep"))

    def test_work_is_done_again_until_the_lock_is_gone(self):
        locked = OperationalError("database is locked")
        work = mock.Mock(side_effect=[locked, locked, "done"])

        self.assertEqual(retry_when_locked(self.connection, work), "done")

    def test_inside_a_transaction_the_lock_is_the_senders_error(self):
        self.connection.in_atomic_block = True
        work = mock.Mock(side_effect=OperationalError("database is locked"))

        self.assertRaises(OperationalError, retry_when_locked, self.connection, work)

        work.assert_called_once()

    def test_other_errors_are_not_tried_again(self):
        work = mock.Mock(side_effect=OperationalError("disk I/O error"))

        self.assertRaises(OperationalError, retry_when_locked, self.connection, work)

        work.assert_called_once()

    def test_patience_has_an_end(self):
        work = mock.Mock(side_effect=OperationalError("database is locked"))

        with mock.patch.object(claims, "LOCK_PATIENCE_S", 0.0):
            self.assertRaises(OperationalError, retry_when_locked, self.connection, work)
