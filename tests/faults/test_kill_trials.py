"""
Workers are killed at random moments, again and again: everything that was sent is found.

Messages that run at once, delayed ones and ones that fail first are mixed. The long size is that
of ``docs/explanation/reliability.md``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Collection
from typing import Any

from django.db import connection
from django.test import tag

from django_actors.models import WaitingMessage
from tests.ledger import tasks
from tests.processes.base import ProcessCase
from tests.processes.test_rabbitmq import RabbitmqProcesses
from tests.processes.test_redis import RedisProcesses

from .report import Figures, find_unfounded, measure
from .sizes import SIZE

WORK_S = 0.02
BATCH = 250


@tag("processes")
class KillTrials(ProcessCase):
    """On the database of this run."""

    processes, threads = 2, 8

    # Beside the database, which holds the waiting room.
    server = ""

    @property
    def broker_name(self) -> str:
        database = str(connection.vendor).replace("mysql", "mariadb")
        return f"{self.server}, {database}" if self.server else database

    def test_kills_at_random_moments_lose_nothing_and_repeat_only_what_ran(self):
        self.start(processes=self.processes, threads=self.threads)
        for trial in range(SIZE.trials):
            with self.subTest(trial=trial):
                self.try_once(trial)

    def try_once(self, trial: int) -> None:
        # The seed is in the output of a failure: it is the number of the trial.
        self.random = random.Random(trial)
        self.ledger_path.write_text("")
        keys = [f"{trial}-{number}" for number in range(SIZE.messages)]
        self.send(keys)
        kills = self.kill_while(keys)
        self.wait_for_all(keys)
        figures = self.figures(keys, kills)
        figures.write()
        self.assertEqual((figures.lost, figures.unfounded), (0, 0), self.explain(figures, kills))

    def send(self, keys: list[str]) -> None:
        """Send eight of ten to run at once, one delayed, one that fails first."""
        calls: list[Any] = []
        for number, key in enumerate(keys):
            if number % 10 == 8:
                delay = self.random.randrange(3_000)
                calls.append(tasks.work.message_with_options(args=(key, WORK_S), delay=delay))
            elif number % 10 == 9:
                calls.append(tasks.stumble.message(key, WORK_S))
            else:
                calls.append(tasks.work.message(key, WORK_S))
        for first in range(0, len(calls), BATCH):
            self.broker.enqueue_many(calls[first : first + BATCH])

    def kill_while(self, keys: list[str]) -> dict[int, float]:
        """Kill a process whenever a random part of the work has been done."""
        kills: dict[int, float] = {}
        parts = sorted(self.random.sample(range(1, len(keys) * 9 // 10), SIZE.kills))
        for part in parts:
            self.wait_for_keys(part)
            victim = self.wait_for_victim(kills)
            kills[victim] = time.time()
            os.kill(victim, signal.SIGKILL)
        return kills

    def wait_for_victim(self, killed: Collection[int]) -> int:
        found: list[int] = []

        def find() -> bool:
            found[:] = [pid for pid in self.worker_pids() if pid not in killed]
            return bool(found)

        self.wait_until(find, "a worker process")
        return self.random.choice(found)

    def wait_for_all(self, keys: list[str]) -> None:
        self.wait_until(
            lambda: len(self.times().keys() | self.dead()) >= len(keys),
            "all messages to run",
            timeout=120,
            step=0.1,
        )
        self.wait_until_settled()

    def dead(self) -> set[str]:
        """Return the keys of the dead letters."""
        rows = WaitingMessage.objects.filter(kind="dead")
        messages = (row.message for row in rows)
        return {str(message.args[0]) for message in messages if message is not None}

    def explain(self, figures: Figures, kills: dict[int, float]) -> str:
        keys = find_unfounded(self.ledger(), kills) | self.dead()
        lines = [str(entry) for entry in self.ledger() if entry.key in keys]
        log = "\n".join(line for line in self.log().splitlines() if "stumble" not in line)
        return "\n".join([str(figures), *lines, str(kills), log[-20_000:]])

    def figures(self, keys: list[str], kills: dict[int, float]) -> Figures:
        return measure(
            self.broker_name,
            f"{len(kills)} x SIGKILL",
            keys=keys,
            entries=self.ledger(),
            dead=self.dead() & set(keys),
            kills=kills,
            # With a broker in the database a move is one transaction.
            movable=[key for key in keys if self.server and int(key.split("-")[1]) % 10 >= 8],
        )


class RedisKillTrials(RedisProcesses, KillTrials):
    server = "redis"


class RabbitmqKillTrials(RabbitmqProcesses, KillTrials):
    server = "rabbitmq"
