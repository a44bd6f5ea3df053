"""
What there is to see: the broker, queues, workers and actors.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from django_actors import clock, pauses, roster, starts
from django_actors.brokers import get_broker
from django_actors.brokers.base import QueueSize
from django_actors.conf import settings
from django_actors.errors import BrokerUnavailable
from django_actors.models import Period, WorkerRecord
from django_actors.registry import RegisteredActor, registry

from .history import Buckets, Figures, buckets, by_actor, by_queue, total
from .waiting import Waiting, count_waiting

# What throughput and the failure rate of a queue are taken from.
RECENT_MINUTES = 5
HOUR_MINUTES = 60
DAY_HOURS = 24


@dataclass(frozen=True)
class BrokerInfo:
    """
    The broker, and whether it answers.

    Attributes:
        name: The class of the broker.

        error: Why it does not answer, without passwords; empty if it does.
    """

    name: str
    error: str = ""

    @property
    def answers(self) -> bool:
        """Whether it answered."""
        return not self.error


@dataclass(frozen=True)
class QueueInfo:
    """
    A queue as it is now.

    Attributes:
        ready: Messages in the broker that no worker has; ``None`` if the broker is down.

        running: Messages that a worker has claimed: they run, or are about to.

        scheduled: Messages in the waiting room that wait for their time.

        dead: Dead letters.

        is_capped: Whether there are more scheduled messages or dead letters than were counted.

        oldest_ms: For how many milliseconds the oldest ready message waits; ``None`` if there
            is none, or the broker cannot tell.

        per_minute: Messages that came to an end per minute, over the last five minutes.

        last_hour: What became of its messages in the last 60 minutes.

        minutes: The same for each of these minutes, the current one last.

        hours: And for each of the last 24 hours.

        paused_since_ms: Milliseconds since 1970; ``None`` if it is not paused.

        workers: Living worker processes that read it.
    """

    name: str
    ready: int | None
    running: int | None
    scheduled: int
    dead: int
    is_capped: bool
    oldest_ms: int | None
    per_minute: float
    last_hour: Figures
    minutes: list[Figures]
    hours: list[Figures]
    paused_since_ms: int | None
    paused_by: str
    workers: int

    @property
    def is_paused(self) -> bool:
        """Whether workers leave it alone."""
        return self.paused_since_ms is not None


@dataclass(frozen=True)
class Running:
    """A message that a worker runs, and for how many milliseconds so far."""

    message_id: str
    actor_name: str
    queue_name: str
    for_ms: int


@dataclass(frozen=True)
class WorkerInfo:
    """
    A living worker process; as it told of itself some seconds ago.

    Attributes:
        busy: Threads that run a message.

        up_ms: Milliseconds since it began.

        seen_ms: Milliseconds since it told.

        running: What its threads run; 64 messages at most.
    """

    host: str
    pid: int
    queues: list[str]
    threads: int
    busy: int
    memory_bytes: int
    up_ms: int
    seen_ms: int
    running: list[Running]


@dataclass(frozen=True)
class CrashLoop:
    """
    A place for a worker process where one after the other dies before it is ready.

    Attributes:
        pid: Of the supervisor, ``runactors``.

        number: Of the place, from 0.

        deaths: How many died there in a row.

        detail: How the last one died.
    """

    host: str
    pid: int
    number: int
    deaths: int
    detail: str

    def __str__(self) -> str:
        return (
            f"Worker process {self.number} of runactors (PID {self.pid}) on {self.host} died "
            f"{self.deaths} times in a row before it was ready; the last one {self.detail}"
        )


@dataclass(frozen=True)
class ActorInfo:
    """
    An actor of this project.

    Attributes:
        signature: Its parameters, as they are declared.

        description: Its docstring; empty if it has none.

        place: Where it is declared.

        last_day: What became of its messages in the last 24 hours.
    """

    name: str
    queue: str
    priority: int
    signature: str
    description: str
    place: str
    options: dict[str, Any]
    last_day: Figures = field(default_factory=Figures)


def broker() -> BrokerInfo:
    """Ask the broker whether it answers."""
    chosen = get_broker()
    name = type(chosen).__name__
    try:
        chosen.ping()
    except BrokerUnavailable as error:
        return BrokerInfo(name, str(error))
    return BrokerInfo(name)


def workers() -> list[WorkerInfo]:
    """Return the worker processes that live, by host and PID."""
    now = clock.now_ms()
    return [_worker_info(row, age_ms, now) for row, age_ms in roster.living(settings.DATABASE)]


def _worker_info(row: WorkerRecord, age_ms: int, now: int) -> WorkerInfo:
    return WorkerInfo(
        host=row.host,
        pid=row.pid,
        queues=json.loads(row.queues),
        threads=row.threads,
        busy=row.busy,
        memory_bytes=row.memory_bytes,
        up_ms=max(0, now - row.started_ms),
        seen_ms=age_ms,
        running=[
            Running(
                each["message_id"],
                each["actor_name"],
                each["queue_name"],
                max(0, now - (each["since_ms"] or now)),
            )
            for each in json.loads(row.running)
        ],
    )


def crash_loops() -> list[CrashLoop]:
    """Return where worker processes die at every start, as their supervisors tell."""
    return [
        CrashLoop(row.host, row.pid, row.number, row.deaths, row.detail)
        for row in starts.find_loops(settings.DATABASE)
    ]


def queues(
    *,
    broker_info: BrokerInfo | None = None,
    living: Collection[WorkerInfo] | None = None,
    count_at_most: int | None = None,
) -> list[QueueInfo]:
    """
    Return every queue that an actor names, that is paused, or that holds a message.

    Args:
        broker_info: What ``broker()`` has just said; it is asked where this is ``None``.

        living: What ``workers()`` has just said.

        count_at_most: Scheduled messages and dead letters to count; all where it is ``None``.
    """
    alias = settings.DATABASE
    waiting = count_waiting(alias, at_most=count_at_most)
    paused = pauses.find(alias)
    minutes = by_queue(Period.MINUTE, HOUR_MINUTES, alias)
    hours = by_queue(Period.HOUR, DAY_HOURS, alias)
    living = workers() if living is None else living
    names = sorted(
        {*get_broker().get_declared_queues(), *waiting.queue_names, *paused, *minutes, *hours}
    )
    sizes, oldest = _ask_broker(names, broker_info or broker())
    return [
        _queue_info(
            name,
            size=sizes.get(name),
            oldest_ms=oldest.get(name),
            waiting=waiting,
            paused=paused.get(name),
            minutes=minutes.get(name, {}),
            hours=hours.get(name, {}),
            workers=sum(name in each.queues for each in living),
        )
        for name in names
    ]


def _ask_broker(
    names: Collection[str], info: BrokerInfo
) -> tuple[Mapping[str, QueueSize], Mapping[str, int]]:
    if not info.answers:
        return {}, {}
    chosen = get_broker()
    try:
        return chosen.queue_sizes(names), chosen.oldest_ready(names)
    except BrokerUnavailable:
        # It went away just now.
        return {}, {}


def _queue_info(
    name: str,
    *,
    size: QueueSize | None,
    oldest_ms: int | None,
    waiting: Waiting,
    paused: Any,
    minutes: Buckets,
    hours: Buckets,
    workers: int,
) -> QueueInfo:
    each_minute = [minutes.get(at, Figures()) for at in buckets(Period.MINUTE, HOUR_MINUTES)]
    each_hour = [hours.get(at, Figures()) for at in buckets(Period.HOUR, DAY_HOURS)]
    # Without the current minute, which has only begun.
    recent = total(each_minute[-RECENT_MINUTES - 1 : -1])
    return QueueInfo(
        name=name,
        ready=None if size is None else size.ready,
        running=None if size is None else size.claimed,
        scheduled=waiting.scheduled.get(name, 0),
        dead=waiting.dead.get(name, 0),
        is_capped=waiting.is_capped,
        oldest_ms=None if oldest_ms is None else max(0, clock.now_ms() - oldest_ms),
        per_minute=(recent.succeeded + recent.dead) / RECENT_MINUTES,
        last_hour=total(each_minute),
        minutes=each_minute,
        hours=each_hour,
        paused_since_ms=paused and paused.since_ms,
        paused_by=paused.paused_by if paused else "",
        workers=workers,
    )


def actors() -> list[ActorInfo]:
    """Return the actors of this project, by name."""
    figures = stats()
    return [
        describe(actor, figures.get(name, Figures()))
        for name, actor in sorted(registry.actors().items())
    ]


def describe(actor: RegisteredActor, last_day: Figures) -> ActorInfo:
    """Return what is to be told of an actor."""
    return ActorInfo(
        name=actor.actor_name,
        queue=actor.queue_name,
        priority=actor.priority,
        signature=signature_of(actor),
        description=inspect.getdoc(getattr(actor, "fn", None)) or "",
        place=actor.place,
        options={**actor.options},
        last_day=last_day,
    )


def signature_of(actor: RegisteredActor) -> str:
    """Return the parameters of an actor as they are declared."""
    try:
        return str(inspect.signature(cast(Any, actor)))
    except (TypeError, ValueError):
        return "(...)"


def last_day(actor_name: str) -> Figures:
    """Return what became of the messages of an actor in the last 24 hours."""
    return stats().get(actor_name, Figures())


def stats(*, hours: int = DAY_HOURS) -> dict[str, Figures]:
    """
    Return what became of messages in the last hours, by actor.

    Args:
        hours: The current hour and those before it; 1 to what ``STATISTICS_TTL`` keeps.
    """
    found: dict[str, Figures] = {}
    for (name, _), each in by_actor(Period.HOUR, hours, settings.DATABASE).items():
        found[name] = found.get(name, Figures()) + each
    return dict(sorted(found.items()))
