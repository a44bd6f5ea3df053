"""
How a thread sleeps until a database has news for it.

PostgreSQL tells (NOTIFY). SQLite can be asked for next to nothing (its data version), and on
Linux the system tells when that is worthwhile: somebody has written to its files. Others are
polled. A pipe wakes the sleeper from within the process.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .file_events import FileEvents

# Names of PostgreSQL's notification channels.
READY_CHANNEL = "django_actors_ready"
DUE_CHANNEL = "django_actors_due"

# With notifications a look is only the safety net.
LISTEN_S = 1.0

# A commit is written to SQLite's files a moment before it can be seen. How soon is looked again,
# the double each time; after the last one a write was no commit, or one of our own.
FIRST_AGAIN_S = 0.001
LAST_AGAIN_S = 0.032

# Where nobody tells: how often to look while there is work, and for how long after.
POLL_S = 0.02
QUIET_AFTER_S = 1.0


class Alarm:
    """
    A pipe to wake a thread that sleeps in ``poll()``; ``ring()`` is for any thread.

    Attributes:
        was_rung: Whether a ring has ended the last sleep.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._rung = False
        self._closed = False
        self._lock = threading.Lock()
        self.was_rung = False

    def ring(self) -> None:
        """End the sleep, or prevent the next one."""
        if self._rung:
            return
        # Not while it is closed: its number may belong to another file the next moment.
        with self._lock:
            if not self._closed:
                self._rung = True
                os.write(self._write, b"!")

    def sleep(self, timeout: float, *sockets: int) -> bool:
        """Sleep up to *timeout* seconds; return whether a ring or one of *sockets* ended it."""
        # Not select(): it takes no descriptor over 1,023.
        poll = select.poll()
        for descriptor in (self._read, *sockets):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, timeout) * 1_000))]
        self.was_rung = self._read in ready
        if self.was_rung:
            self._hush()
        return bool(ready)

    def _hush(self) -> None:
        try:
            while os.read(self._read, 64):
                pass
        except BlockingIOError:
            pass
        # Cleared last: in the other order a ring in between would leave the flag set and the
        # pipe empty, and nobody could ring again. One that comes now finds us awake.
        self._rung = False

    def close(self) -> None:
        """Close the pipe; a ring does nothing from now on."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
                os.close(self._write)


class AlarmWatch:
    """Sleep where there is no database to ask; the interface is ``NewsWatch``'s."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm

    def wait(self, timeout: float) -> bool:
        """Sleep up to *timeout* seconds; return whether the alarm ended it."""
        return self._alarm.sleep(timeout)

    def note_activity(self) -> None:
        """Do nothing: an alarm needs no looking."""

    def close(self) -> None:
        """Do nothing: the alarm belongs to who made it."""


def notify_sql(connection: BaseDatabaseWrapper, channel: str) -> str | None:
    """Return the statement that tells others of news, or ``None`` where there is none."""
    return f"NOTIFY {channel}" if connection.vendor == "postgresql" else None


class NewsWatch:
    """
    Sleep until a database may have news, on Django's own connection of the calling thread.

    Args:
        alarm: Ends the sleep from another thread.

        channel: What PostgreSQL's notifications are listened for.

        quiet_poll_s: Seconds between two looks of an idle process at another database.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        alarm: Alarm,
        channel: str,
        *,
        quiet_poll_s: float,
    ) -> None:
        self._connection = connection
        self._alarm = alarm
        self._channel = channel
        self._quiet_poll_s = quiet_poll_s
        self._listening_on: Any = None
        self._heard = False
        self._looked_at = 0.0
        self._active_at = time.monotonic()
        self._told_at = -math.inf
        self._events = FileEvents()
        self._is_told = False
        self._again_s = math.inf
        self._data_version: tuple[Any, int] | None = None

    def wait(self, timeout: float) -> bool:
        """Sleep up to *timeout* seconds, or until the alarm; return whether there may be news."""
        return self._listen(timeout) if self._can_listen else self._poll(timeout)

    def note_activity(self) -> None:
        """Look more often for a while: something was found."""
        self._active_at = time.monotonic()

    def close(self) -> None:
        """Let go of what the system has for it; not to be waited on any more."""
        self._events.close()

    # ---- where the database tells ----------------------------------------------

    @property
    def _can_listen(self) -> bool:
        return self._connection.vendor == "postgresql" and _is_psycopg_3(self._connection)

    def _listen(self, timeout: float) -> bool:
        socket_number = self._ensure_listening()
        if self._has_heard():
            return True
        self._alarm.sleep(min(timeout, LISTEN_S), socket_number)
        if self._has_heard():
            return True
        return self._is_time_to_look()

    def _ensure_listening(self) -> int:
        self._connection.ensure_connection()
        raw: Any = self._connection.connection
        if raw is not self._listening_on:
            # Those that come in while a query runs would be thrown away without a handler.
            raw.add_notify_handler(self._hear)
            with self._connection.cursor() as cursor:
                cursor.execute(f"LISTEN {self._channel}")
            self._listening_on = raw
            self._heard = True
        with self._connection.wrap_database_errors:
            return int(raw.fileno())

    def _hear(self, notification: object) -> None:
        self._heard = True

    def _has_heard(self) -> bool:
        pgconn = self._connection.connection.pgconn
        # In Django's own errors: who catches those closes a connection that is dead.
        with self._connection.wrap_database_errors:
            pgconn.consume_input()
            while pgconn.notifies():
                self._heard = True
        heard, self._heard = self._heard, False
        return heard

    def _is_time_to_look(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < LISTEN_S:
            return False
        self._looked_at = now
        return True

    # ---- where it does not -----------------------------------------------------

    def _poll(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        if self._connection.vendor == "sqlite" and self._look():
            return True
        while (left := deadline - time.monotonic()) > 0:
            self._sleep(left)
            news = self._look()
            if news or self._alarm.was_rung:
                return news
        return False

    def _sleep(self, left: float) -> None:
        if (rest := self._rest_s()) > 0:
            self._alarm.sleep(min(left, rest))
        else:
            self._alarm.sleep(min(left, self._pause_s()), *self._events.descriptors)

    def _rest_s(self) -> float:
        """Return how long not to look: the last news were of no use, and may be so all the time."""
        if self._active_at >= self._told_at:
            return 0.0
        return self._told_at + self._pace_s() - time.monotonic()

    def _pause_s(self) -> float:
        return min(self._again_s, LISTEN_S) if self._is_told else self._pace_s()

    def _pace_s(self) -> float:
        """Return how long it is from one look to the next where nobody tells."""
        active = time.monotonic() - self._active_at < QUIET_AFTER_S
        return POLL_S if active else self._quiet_poll_s

    def _look(self) -> bool:
        if self._rest_s() > 0:
            return False
        heard = self._events.take()
        news = self._may_have_news()
        if news:
            # Who has missed some is deaf, as to what comes over a network, and is not relied on
            # until he hears again.
            self._is_told = heard or self._again_s < math.inf
            self._again_s = math.inf
            self._told_at = time.monotonic()
        elif heard:
            self._again_s = FIRST_AGAIN_S
        else:
            self._again_s = 2 * self._again_s if self._again_s < LAST_AGAIN_S else math.inf
        return news

    def _may_have_news(self) -> bool:
        if self._connection.vendor != "sqlite":
            return True
        # Microseconds, no lock: SQLite counts the commits of all other connections.
        self._connection.ensure_connection()
        raw: Any = self._connection.connection
        with self._connection.wrap_database_errors:
            (version,) = raw.execute("PRAGMA data_version").fetchone()
        # The versions of two connections cannot be compared.
        before, self._data_version = self._data_version, (raw, version)
        if before is None or before[0] is not raw:
            self._events.watch(_files_of(raw))
        return bool(self._data_version != before)


def _files_of(raw: Any) -> tuple[str, ...]:
    """Return the files that a commit to a database of SQLite may write to."""
    ((_, _, path), *_) = raw.execute("PRAGMA database_list").fetchall()
    # In memory it has none.
    return (path, f"{path}-wal") if path else ()


def _is_psycopg_3(connection: BaseDatabaseWrapper) -> bool:
    database: Any = getattr(connection, "Database", None)
    return getattr(database, "__version__", "2").startswith("3")
