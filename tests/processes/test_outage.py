"""What workers do while their database is away."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from django.db import OperationalError, connection

from tests.ledger import tasks
from tests.proxy import Proxy

from .base import ProcessCase, database_url

OUTAGE_S = 4.0
# Of two processes, each of which has a few threads that wait longer and longer.
MOST_ATTEMPTS = 60


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used; 0 where /proc is missing."""
    path = Path(f"/proc/{pid}/stat")
    if not path.exists():
        return 0.0
    fields = path.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class OutageTests(ProcessCase):
    def test_a_database_that_goes_away_for_a_while_costs_no_message_and_no_busy_loop(self):
        with self.outage() as (go_away, come_back):
            self.start(processes=2, threads=4)
            tasks.work.send_many([(key, 0.05) for key in range(400)])
            self.wait_for_keys(50)

            go_away()
            before = sum(map(cpu_seconds, self.worker_pids()))
            # Not a wait for a state: the outage has to have some length.
            time.sleep(OUTAGE_S)
            used = sum(map(cpu_seconds, self.worker_pids())) - before
            attempt = self.cost_of_an_attempt()
            come_back()

            self.wait_for_keys(400)
            self.wait_until_settled()
        self.assertEqual(len(self.times()), 400)
        # Some drivers spend a thirtieth of a second on each attempt to connect.
        self.assertLess(used, OUTAGE_S * 0.25 + MOST_ATTEMPTS * attempt)
        self.assertEqual(len(self.worker_pids()), 2)

    def cost_of_an_attempt(self) -> float:
        """Return the processor time of an attempt to connect to a server that is away."""
        if connection.vendor == "sqlite":
            return 0.0
        away = connection.copy()
        away.settings_dict = {**away.settings_dict, "HOST": "127.0.0.1", "PORT": "1"}
        began = time.process_time()
        self.assertRaises(OperationalError, away.ensure_connection)
        return time.process_time() - began

    def outage(self):
        return _Locked(self) if connection.vendor == "sqlite" else _Cut(self)


class _Cut:
    """A server behind a proxy that closes everything."""

    def __init__(self, case):
        self.case = case
        settings = connection.settings_dict
        port = int(settings["PORT"] or {"postgresql": 5432, "mysql": 3306}[connection.vendor])
        self.proxy = Proxy(settings["HOST"] or "127.0.0.1", port)
        place = f"{settings['HOST'] or '127.0.0.1'}"
        url = database_url()
        login, _, rest = url.rpartition("@")
        self.case.database_url = f"{login}@127.0.0.1:{self.proxy.port}/{rest.partition('/')[2]}"
        assert place in url

    def __enter__(self):
        return self.proxy.refuse, self.proxy.accept

    def __exit__(self, *error):
        self.case.addCleanup(self.proxy.close)


class _Locked:
    """A SQLite file that somebody else holds a write lock on."""

    def __init__(self, case):
        self.case = case
        self.other = sqlite3.connect(
            connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False
        )

    def __enter__(self):
        return self.lock, self.unlock

    def lock(self):
        self.other.execute("PRAGMA busy_timeout = 20000")
        self.other.execute("BEGIN IMMEDIATE")

    def unlock(self):
        self.other.execute("ROLLBACK")

    def __exit__(self, *error):
        self.other.close()
