"""Who takes part, and how each is started: the production settings that its documents name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

PROCESSES, THREADS = 2, 8

ENGINES = "tests.benchmarks.speed.engines"
MANAGE = ("-m", "tests.benchmarks.speed.manage")

OURS, FLOOR = "django_actors", "floor"
CLASSIC, QUORUM = "classic", "quorum"
OURS_CLASSIC = f"{OURS} ({CLASSIC} queue)"
BROKERS = ("redis", "rabbitmq", "postgresql", "sqlite")


@dataclass(frozen=True)
class Crew:
    """
    The workers of a run.

    Args:
        copies: How often the worker's command is started.

        processes: How many processes run messages.

        slots: How many messages they all run at the same time.
    """

    copies: int
    processes: int
    slots: int


@dataclass(frozen=True)
class Contender:
    """
    An engine on a broker.

    Args:
        name: What it is called in the tables; its package, but for the floor.

        module: Its module in ``engines``.

        command: The arguments of Python that start a worker; ``{number}`` is the worker's,
            ``{processes}`` how many processes it shall have.

        forks: Whether the command starts all processes; it is started for each of them if not.

        threads: How many messages a process runs at the same time.

        share: The part of the messages that it gets in a drain. A slow one would take minutes.

        queue_type: What keeps its messages on RabbitMQ.
    """

    name: str
    broker: str
    module: str
    command: tuple[str, ...]
    forks: bool = True
    threads: int = THREADS
    share: float = 1.0
    queue_type: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} on {self.broker}"

    @property
    def is_peer(self) -> bool:
        return self.name not in (OURS, OURS_CLASSIC, FLOOR)

    @property
    def counterpart(self) -> str:
        """The name of ours that it is compared with: messages are kept in the same way."""
        return OURS_CLASSIC if self.is_peer and self.queue_type == CLASSIC else OURS

    @property
    def in_django(self) -> bool:
        """Whether its workers have loaded a Django project."""
        return self.name not in ("rq", FLOOR)

    def crew(self, processes: int, *, lean: bool = False) -> Crew:
        """
        Return workers of so many processes with eight threads each.

        Who has no threads gets a process in the place of each, unless it shall be *lean*.
        """
        if self.threads == 1 and not lean:
            processes *= THREADS
        return Crew(1 if self.forks else processes, processes, processes * self.threads)


def _actors(broker: str) -> Contender:
    flags = ("--processes", "{processes}", "--threads", f"{THREADS}")
    return Contender(OURS, broker, "with_actors", (*MANAGE, "runactors", *flags))


def _floor(broker: str) -> Contender:
    command = ("-m", f"{ENGINES}.with_floor")
    return Contender(FLOOR, broker, "with_floor", command, forks=False)


def _dramatiq(broker: str) -> Contender:
    flags = ("--processes", "{processes}", "--threads", f"{THREADS}")
    command = ("-m", "dramatiq", f"{ENGINES}.with_dramatiq", *flags)
    return Contender("dramatiq", broker, "with_dramatiq", command, share=0.15)


def _celery(broker: str) -> Contender:
    # Threads, as the others have them; its default is a pool of processes.
    flags = ("--pool", "threads", "--concurrency", f"{THREADS}", "--loglevel", "WARNING")
    command = ("-m", "celery", "-A", f"{ENGINES}.with_celery", "worker", *flags)
    name = ("-n", "worker{number}@%h")
    return Contender("celery", broker, "with_celery", (*command, *name), forks=False, share=0.1)


def _rq() -> Contender:
    # It has no threads, and forks for each job.
    flags = ("-n", "{processes}", "--quiet", "--url", "{url}")
    command = ("-m", "rq.cli", "worker-pool", "benchmark", *flags)
    return Contender("rq", "redis", "with_rq", command, threads=1, share=0.02)


def _huey(broker: str) -> Contender:
    # Without --quiet it logs each task.
    flags = ("-w", f"{THREADS}", "-k", "thread", "--quiet")
    command = ("-m", "huey.bin.huey_consumer", f"{ENGINES}.with_huey.huey", *flags)
    return Contender("huey", broker, "with_huey", command, forks=False, share=0.1)


def _procrastinate() -> Contender:
    command = (*MANAGE, "procrastinate", "worker", "--concurrency", f"{THREADS}")
    # Its tasks that are no coroutines run in the pool of asyncio, which has no more threads.
    threads = min(THREADS, (os.cpu_count() or 1) + 4)
    return Contender(
        "procrastinate",
        "postgresql",
        "with_procrastinate",
        command,
        forks=False,
        threads=threads,
        share=0.05,
    )


def _tasks_db(broker: str) -> Contender:
    # It has no threads.
    command = (*MANAGE, "db_worker", "--verbosity", "0")
    return Contender(
        "django-tasks-db", broker, "with_tasks_db", command, forks=False, threads=1, share=0.05
    )


def _ox(broker: str) -> Contender:
    flags = ("--processes", "{processes}", "--concurrency", f"{THREADS}", "--verbosity", "0")
    return Contender("django-ox", broker, "with_ox", (*MANAGE, "ox_worker", *flags), share=0.05)


def _in_queues(contender: Contender, queue_type: str, default: str) -> Contender:
    """Return the contender on RabbitMQ with queues of this type; named if it is not its default."""
    name = contender.name if queue_type == default else f"{contender.name} ({queue_type} queue)"
    return replace(contender, name=name, queue_type=queue_type)


def _on_rabbitmq() -> Iterator[Contender]:
    for queue_type in (QUORUM, CLASSIC):
        yield _in_queues(_actors("rabbitmq"), queue_type, QUORUM)
        yield _in_queues(_dramatiq("rabbitmq"), queue_type, CLASSIC)
        yield _in_queues(_celery("rabbitmq"), queue_type, CLASSIC)
    yield _in_queues(_floor("rabbitmq"), QUORUM, QUORUM)


CONTENDERS = [
    *(make(broker) for broker in ("redis", "postgresql", "sqlite") for make in (_actors, _floor)),
    *_on_rabbitmq(),
    *(make("redis") for make in (_dramatiq, _celery)),
    _rq(),
    *(_huey(broker) for broker in ("redis", "postgresql", "sqlite")),
    _procrastinate(),
    *(make(broker) for broker in ("postgresql", "sqlite") for make in (_tasks_db, _ox)),
]
