"""Who takes part, and how each is started: the production settings that its documents name."""

from __future__ import annotations

import os
from dataclasses import dataclass

PROCESSES, THREADS = 2, 8
SLOTS = PROCESSES * THREADS

ENGINES = "tests.benchmarks.speed.engines"
MANAGE = ("-m", "tests.benchmarks.speed.manage")

OURS, FLOOR = "django_actors", "floor"
BROKERS = ("redis", "rabbitmq", "postgresql", "sqlite")


@dataclass(frozen=True)
class Contender:
    """
    An engine on a broker.

    Args:
        name: What it is called in the tables; its package, but for the floor.

        module: Its module in ``engines``.

        command: The arguments of Python that start a worker; ``{number}`` is the worker's.

        copies: How many such workers run; fewer where a worker has processes of its own.

        share: The part of the messages that it gets in a drain. A slow one would take minutes.

        slots: How many messages all its workers run at the same time.
    """

    name: str
    broker: str
    module: str
    command: tuple[str, ...]
    copies: int = 1
    share: float = 1.0
    slots: int = SLOTS

    @property
    def title(self) -> str:
        return f"{self.name} on {self.broker}"


def _actors(broker: str) -> Contender:
    flags = ("--processes", f"{PROCESSES}", "--threads", f"{THREADS}")
    return Contender(OURS, broker, "with_actors", (*MANAGE, "runactors", *flags))


def _floor(broker: str) -> Contender:
    command = ("-m", f"{ENGINES}.with_floor")
    return Contender(FLOOR, broker, "with_floor", command, copies=PROCESSES)


def _dramatiq(broker: str) -> Contender:
    flags = ("--processes", f"{PROCESSES}", "--threads", f"{THREADS}")
    command = ("-m", "dramatiq", f"{ENGINES}.with_dramatiq", *flags)
    return Contender("dramatiq", broker, "with_dramatiq", command, share=0.15)


def _celery(broker: str) -> Contender:
    # Threads, as the others have them; its default is a pool of processes.
    flags = ("--pool", "threads", "--concurrency", f"{THREADS}", "--loglevel", "WARNING")
    command = ("-m", "celery", "-A", f"{ENGINES}.with_celery", "worker", *flags)
    name = ("-n", "worker{number}@%h")
    return Contender("celery", broker, "with_celery", (*command, *name), PROCESSES, share=0.1)


def _rq() -> Contender:
    # It has no threads: a process for each slot, and a fork for each job.
    flags = ("-n", f"{SLOTS}", "--quiet", "--url", "{url}")
    command = ("-m", "rq.cli", "worker-pool", "benchmark", *flags)
    return Contender("rq", "redis", "with_rq", command, share=0.02)


def _huey(broker: str) -> Contender:
    # Without --quiet it logs each task.
    flags = ("-w", f"{THREADS}", "-k", "thread", "--quiet")
    command = ("-m", "huey.bin.huey_consumer", f"{ENGINES}.with_huey.huey", *flags)
    return Contender("huey", broker, "with_huey", command, PROCESSES, share=0.1)


def _procrastinate() -> Contender:
    command = (*MANAGE, "procrastinate", "worker", "--concurrency", f"{THREADS}")
    # Its tasks that are no coroutines run in the pool of asyncio, which has no more threads.
    slots = PROCESSES * min(THREADS, (os.cpu_count() or 1) + 4)
    return Contender(
        "procrastinate", "postgresql", "with_procrastinate", command, PROCESSES, 0.05, slots
    )


def _tasks_db(broker: str) -> Contender:
    # It has no threads: a process for each slot.
    command = (*MANAGE, "db_worker", "--verbosity", "0")
    return Contender("django-tasks-db", broker, "with_tasks_db", command, SLOTS, share=0.05)


def _ox(broker: str) -> Contender:
    flags = ("--processes", f"{PROCESSES}", "--concurrency", f"{THREADS}", "--verbosity", "0")
    return Contender("django-ox", broker, "with_ox", (*MANAGE, "ox_worker", *flags), share=0.05)


CONTENDERS = [
    *(make(broker) for broker in BROKERS for make in (_actors, _floor)),
    *(make(broker) for broker in ("redis", "rabbitmq") for make in (_dramatiq, _celery)),
    _rq(),
    *(_huey(broker) for broker in ("redis", "postgresql", "sqlite")),
    _procrastinate(),
    *(make(broker) for broker in ("postgresql", "sqlite") for make in (_tasks_db, _ox)),
]
