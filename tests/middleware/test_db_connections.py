"""Worker threads keep their database connections, as long as they are good."""

from __future__ import annotations

import threading
import time
from typing import Any
from unittest.mock import patch

from django.db import connection as default_connection
from django.db import connections, transaction
from django.db.backends.signals import connection_created
from django.test import SimpleTestCase, TestCase

from django_actors.middleware import DbConnections, db_connections
from django_actors.middleware.db_connections import IDLE_S, refresh, tidy
from tests.engine import EngineCase, in_thread
from tests.support import StubCase


class FakeConnection:
    """A connection of which a test decides in which state it is."""

    def __init__(self, **state: Any) -> None:
        self.connection: Any = object()
        self.in_atomic_block = False
        self.close_at: float | None = None
        self.errors_occurred = False
        self.usable = True
        self.autocommit = True
        self.queries_logged = False
        self.force_debug_cursor = False
        self.max_age: int | None = 0
        self.closed = 0
        self.asked = 0
        self.__dict__.update(state)

    @property
    def settings_dict(self) -> dict[str, Any]:
        return {"CONN_MAX_AGE": self.max_age, "AUTOCOMMIT": True}

    def is_usable(self) -> bool:
        self.asked += 1
        return self.usable

    def get_autocommit(self) -> bool:
        return self.autocommit

    def close(self) -> None:
        self.closed += 1


def make_connection(**state: Any) -> Any:
    return FakeConnection(**state)


class RefreshTests(SimpleTestCase):
    """Before a message: a connection that may be dead is looked at, others are not."""

    def closed(self, *, idle_s: float = 0.0, **state: Any) -> Any:
        self.connection = make_connection(**state)
        self.connection._actors_idle_since = time.monotonic() - idle_s
        refresh(self.connection)
        return self.connection.closed == 1

    def test_one_that_was_used_just_now_costs_no_look(self):
        self.assertFalse(self.closed(usable=False))
        self.assertEqual(self.connection.asked, 0)

    def test_one_that_was_idle_for_long_is_looked_at(self):
        self.assertFalse(self.closed(idle_s=IDLE_S + 1))
        self.assertEqual(self.connection.asked, 1)
        self.assertTrue(self.closed(idle_s=IDLE_S + 1, usable=False))

    def test_one_that_outlived_its_age_is_closed(self):
        now = time.monotonic()

        self.assertTrue(self.closed(max_age=60, close_at=now - 1))
        self.assertFalse(self.closed(max_age=60, close_at=now + 60))
        self.assertFalse(self.closed(max_age=None, close_at=None))

    def test_an_age_of_zero_is_no_limit_in_a_worker(self):
        self.assertFalse(self.closed(max_age=0, close_at=time.monotonic() - 1))

    def test_one_in_a_transaction_is_its_owners(self):
        self.assertFalse(self.closed(in_atomic_block=True, max_age=60, close_at=0.0))

    def test_one_that_is_not_open_is_left_alone(self):
        self.assertFalse(self.closed(connection=None, max_age=60, close_at=0.0))


class TidyTests(SimpleTestCase):
    """After a message: what is broken or in the middle of something is dropped."""

    def closed(self, **state: Any) -> Any:
        self.connection = make_connection(**state)
        tidy(self.connection)
        return self.connection.closed == 1

    def test_a_good_one_is_kept(self):
        self.assertFalse(self.closed())
        self.assertFalse(self.closed(max_age=0, close_at=0.0))

    def test_one_that_was_left_in_a_transaction_is_closed(self):
        self.assertTrue(self.closed(autocommit=False))

    def test_one_that_had_an_error_is_closed_if_it_is_broken(self):
        self.assertTrue(self.closed(errors_occurred=True, usable=False))
        self.assertFalse(self.closed(errors_occurred=True))
        self.assertFalse(self.connection.errors_occurred)

    def test_one_in_a_transaction_is_its_owners(self):
        self.assertFalse(self.closed(in_atomic_block=True, errors_occurred=True, usable=False))

    def forgets_queries(self, **state: Any) -> bool:
        with patch("django_actors.middleware.db_connections.reset_queries") as reset:
            self.closed(**state)
        return reset.called

    def test_the_queries_that_debug_keeps_do_not_pile_up(self):
        self.assertTrue(self.forgets_queries(queries_logged=True))
        self.assertFalse(self.forgets_queries(queries_logged=False))

    def test_a_test_that_counts_queries_keeps_them(self):
        self.assertFalse(self.forgets_queries(queries_logged=True, force_debug_cursor=True))


class ThreadTests(EngineCase):
    """On a real database, in a thread of its own, as in a worker."""

    def run_two(self, first: Any) -> Any:
        """Run two messages in one thread; return the driver's connection after each."""
        middleware = DbConnections()

        def work() -> tuple[Any, Any]:
            seen = []
            for function in (first, lambda: None):
                middleware.before_process_message(None, None)
                default_connection.ensure_connection()
                function()
                middleware.after_process_message(None, None)
                seen.append(default_connection.connection)
            return seen[0], seen[1]

        return in_thread(work)

    def test_a_thread_keeps_its_connection_from_message_to_message(self):
        self.assertEqual(default_connection.settings_dict["CONN_MAX_AGE"], 0)

        first, second = self.run_two(lambda: None)

        self.assertIsNotNone(first)
        self.assertIs(first, second)

    def test_a_connection_left_in_a_transaction_is_dropped_with_it(self):
        def leave_open() -> None:
            transaction.set_autocommit(False)

        first, second = self.run_two(leave_open)

        self.assertIsNone(first)
        self.assertIsNotNone(second)

    def test_a_connection_from_before_the_middleware_was_there_is_looked_after_too(self):
        def work() -> Any:
            default_connection.ensure_connection()
            transaction.set_autocommit(False)
            with patch.object(db_connections, "_thread", threading.local()):
                DbConnections().after_process_message(None, None)
            return default_connection.connection

        self.assertIsNone(in_thread(work))

    def test_a_connection_that_broke_is_replaced(self):
        def break_it() -> None:
            # The thread's own wrapper, which goes with the thread.
            mine: Any = connections["default"]
            mine.errors_occurred, mine.is_usable = True, lambda: False

        first, second = self.run_two(break_it)

        self.assertIsNone(first)
        self.assertIsNotNone(second)

    def test_a_thread_that_ends_closes_its_connections(self):
        middleware = DbConnections()

        for hook in (
            middleware.before_worker_thread_shutdown,
            middleware.before_consumer_thread_shutdown,
        ):

            def work(hook: Any = hook) -> Any:
                default_connection.ensure_connection()
                hook(None, None)
                return default_connection.connection

            with self.subTest(hook=hook):
                self.assertIsNone(in_thread(work))


class SkippedTests(StubCase):
    def test_a_skipped_message_leaves_its_connections_tidy_too(self):
        connection = make_connection(autocommit=False)

        def skip() -> None:
            connection_created.send(type(connection), connection=connection)
            DbConnections().after_skip_message(None, None)

        in_thread(skip)

        self.assertEqual(connection.closed, 1)


class InTestThreadTests(TestCase):
    def test_the_transaction_of_a_test_is_left_alone(self):
        before = default_connection.connection

        DbConnections().before_process_message(None, None)
        DbConnections().after_process_message(None, None)

        self.assertIs(default_connection.connection, before)
        self.assertTrue(default_connection.in_atomic_block)
