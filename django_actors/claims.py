"""
The statements Django's ORM cannot say: claim rows in batches, and the database's own time.

Used by the waiting room and the database broker; both claim rows the same way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import (
    DEFAULT_DB_ALIAS,
    OperationalError,
    ProgrammingError,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BigIntegerField, Model
from django.db.models.expressions import RawSQL

Row = tuple[Any, ...]
Result = TypeVar("Result")

# Long enough for another writer of SQLite to finish, and shorter than a lease.
LOCK_PATIENCE_S = 10.0

# Every claim and lease goes by the clock of the one server that all workers share.
_NOW_MS = {
    # Not clock_timestamp(): that one may change from row to row, so no index would be used.
    "postgresql": "(EXTRACT(EPOCH FROM statement_timestamp()) * 1000)::bigint",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6)) DIV 1000)",
}


def now_ms_sql(connection: BaseDatabaseWrapper) -> str:
    """
    Return the SQL expression of the database's time in milliseconds since 1970.

    Raises:
        NotImplementedError: the engine does not know this kind of database.
    """
    try:
        return _NOW_MS[connection.vendor]
    except KeyError:
        raise NotImplementedError(
            f"django_actors keeps its tables on PostgreSQL, MariaDB, MySQL and SQLite, not on "
            f"{connection.vendor}. Point DJANGO_ACTORS['DATABASE'] and the broker elsewhere."
        ) from None


def now_ms_expression(alias: str) -> RawSQL:
    """
    Return the time of database *alias* as an expression for querysets; all machines share it.

    Raises:
        NotImplementedError: the engine does not know this kind of database.
    """
    return RawSQL(now_ms_sql(connections[alias]), (), output_field=BigIntegerField())


def quoted_table(connection: BaseDatabaseWrapper, model: type[Model]) -> str:
    """Return the quoted name of the table of *model*."""
    return connection.ops.quote_name(model._meta.db_table)


def _updates_and_returns(connection: BaseDatabaseWrapper) -> bool:
    # MariaDB returns rows of INSERT and DELETE, but not of UPDATE.
    return connection.vendor in ("postgresql", "sqlite")


def _lock_clause(connection: BaseDatabaseWrapper) -> str:
    features = connection.features
    if features.has_select_for_update_skip_locked:
        return " FOR UPDATE SKIP LOCKED"
    return " FOR UPDATE" if features.has_select_for_update else ""


@cache
def _one_statement(
    table: str, changes: str, columns: str, arm: str, arms: int, order: str, vendor: str, lock: str
) -> str:
    if arms == 1:
        chosen = arm + lock
    else:
        union = " UNION ALL ".join(f"SELECT * FROM ({arm}{lock}) arm{n}" for n in range(arms))
        chosen = f"SELECT id FROM ({union}) arms ORDER BY {order} LIMIT %s"
    # ANY(ARRAY()) runs the selection once; PostgreSQL may run IN (SELECT ... LIMIT) once a row.
    within = f"= ANY(ARRAY({chosen}))" if vendor == "postgresql" else f"IN ({chosen})"
    return f"UPDATE {table} SET {changes} WHERE id {within} RETURNING {columns}"


class ClaimStatement:
    """
    Claim the first rows of a selection, so that nobody else can have them.

    Args:
        model: Whose rows. It has ``id`` as its key.

        columns: What to return of each row, ``id`` first.

        where: SQL of the selection; its parameters are given for each arm.

        order: Columns by which the first rows are chosen, such as ``priority, id``.

        changes: SQL after ``SET``.

        as_found: Whether rows are returned as they were found, and not as they are then.
    """

    def __init__(
        self,
        model: type[Model],
        *,
        columns: str,
        where: str,
        order: str,
        changes: str,
        as_found: bool = False,
    ) -> None:
        self.model = model
        self.columns = columns
        self.where = where
        self.order = order
        self.changes = changes
        self.as_found = as_found

    def run(
        self,
        connection: BaseDatabaseWrapper,
        arms: Sequence[Sequence[Any]],
        *,
        set_params: Sequence[Any],
        limit: int,
    ) -> list[Row]:
        """
        Claim up to *limit* rows.

        Args:
            arms: Parameters of ``where``, once for each part of the selection. Each part is
                read in the order of the index, so a long backlog in one costs nothing.

            set_params: Parameters of ``changes``.

        Returns:
            The claimed rows in no order.
        """
        if _updates_and_returns(connection) and not self.as_found:
            return self._claim_at_once(connection, arms, set_params, limit)
        return self._lock_then_update(connection, arms, set_params, limit)

    def _arm(self, connection: BaseDatabaseWrapper, columns: str) -> str:
        table = quoted_table(connection, self.model)
        now = now_ms_sql(connection)
        where = self.where.replace("{now}", now)
        return f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {self.order} LIMIT %s"

    def _claim_at_once(
        self,
        connection: BaseDatabaseWrapper,
        arms: Sequence[Sequence[Any]],
        set_params: Sequence[Any],
        limit: int,
    ) -> list[Row]:
        columns = "id" if len(arms) == 1 else _with_id(self.order)
        statement = _one_statement(
            quoted_table(connection, self.model),
            self.changes.replace("{now}", now_ms_sql(connection)),
            self.columns,
            self._arm(connection, columns),
            len(arms),
            self.order,
            connection.vendor,
            _lock_clause(connection),
        )
        params = [*set_params]
        for arm in arms:
            params += [*arm, limit]
        if len(arms) > 1:
            params.append(limit)
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            return list(cursor.fetchall())

    def _lock_then_update(
        self,
        connection: BaseDatabaseWrapper,
        arms: Sequence[Sequence[Any]],
        set_params: Sequence[Any],
        limit: int,
    ) -> list[Row]:
        select = self._arm(connection, f"{self.columns}, {self.order}") + _lock_clause(connection)
        width = len(self.columns.split(","))
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            rows: list[Row] = []
            for arm in arms:
                cursor.execute(select, [*arm, limit])
                rows += cursor.fetchall()
            rows.sort(key=lambda row: row[width:])
            del rows[limit:]
            self._update(connection, cursor, [row[0] for row in rows], set_params)
        return [row[:width] for row in rows]

    def _update(
        self,
        connection: BaseDatabaseWrapper,
        cursor: Any,
        ids: Sequence[int],
        set_params: Sequence[Any],
    ) -> None:
        if not ids:
            return
        marks = ", ".join(["%s"] * len(ids))
        table = quoted_table(connection, self.model)
        changes = self.changes.replace("{now}", now_ms_sql(connection))
        cursor.execute(f"UPDATE {table} SET {changes} WHERE id IN ({marks})", [*set_params, *ids])


def _with_id(order: str) -> str:
    return order if "id" in order.split(", ") else f"id, {order}"


def is_locked_out(error: Exception) -> bool:
    """Whether the database only asks to try again: a lock, a deadlock, a lost race."""
    if not isinstance(error, OperationalError):
        return False
    text = str(error).lower()
    words = ("locked", "deadlock", "lock wait timeout", "could not serialize", "try restarting")
    return any(word in text for word in words)


def tables_of_few_characters(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the tables of ours on MySQL or MariaDB with columns that are not utf8mb4."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name LIKE 'django\\_actors\\_%%' "
            "AND character_set_name NOT LIKE 'utf8mb4' ORDER BY table_name",
            [],
        )
        return [name for (name,) in cursor.fetchall()]


# "Incorrect string value", and MySQL's "Conversion from collation ... impossible".
_REFUSED_CHARACTERS = (1366, 3988)


def refuses_characters(error: Exception) -> bool:
    """Whether a text holds a character for which the column of a table has no code."""
    return bool(error.args) and error.args[0] in _REFUSED_CHARACTERS


_MISSING = ("no such table", "no such column", "does not exist", "doesn't exist", "unknown column")
_CONNECTING = ("connect", "resolve", "password", "access denied", "unknown database", 'database "')


def describe_trouble(alias: str, error: Exception) -> str:
    """Return what is wrong with the database *alias*, and what to do about it."""
    # Drivers go on with the statement, or with questions.
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    text = reason.lower()
    if _is_about_tables(error) and any(words in text for words in _MISSING):
        to = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
        return (
            f"The database {alias!r} lacks a table of django_actors: {reason}. "
            f"Run manage.py migrate{to}."
        )
    if is_locked_out(error):
        return (
            f"The database {alias!r} is kept locked by another writer: {reason}. Look for a "
            "transaction that stays open; on SQLite, manage.py check --deploy names settings "
            "that help."
        )
    cure = ""
    if any(words in text for words in _CONNECTING):
        cure = f" Start its server, or correct DATABASES[{alias!r}]."
    return f"The database {alias!r}, which django_actors uses, does not answer: {reason}.{cure}"


def _is_about_tables(error: Exception) -> bool:
    # SQLite has one class for everything.
    return isinstance(error, ProgrammingError) or "no such" in str(error)


def retry_when_locked(connection: BaseDatabaseWrapper, work: Callable[[], Result]) -> Result:
    """
    Do *work* until the database is not locked, with jitter; ``LOCK_PATIENCE_S`` at most.

    Inside the caller's transaction nothing can be tried again: the error is the caller's.
    """
    deadline = time.monotonic() + LOCK_PATIENCE_S
    pause = 0.005
    while True:
        try:
            return work()
        except OperationalError as error:
            hopeless = connection.in_atomic_block or time.monotonic() >= deadline
            if hopeless or not is_locked_out(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 2, 0.25)
