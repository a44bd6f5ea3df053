"""
What an operator can see and do: the same for Python, ``manage.py actors`` and the admin.

Everything here works with every broker: what waits is asked of the waiting room, what is ready
of the broker, and what runs of the workers' own rows. See ``docs/reference/control.md``.
"""

from .checkup import Problem, health
from .history import Figures
from .messages import (
    Report,
    Selection,
    cancel,
    dead_letters,
    discard,
    requeue,
    reschedule,
    run_now,
    scheduled,
    show,
)
from .monitor import (
    ActorInfo,
    BrokerInfo,
    CrashLoop,
    QueueInfo,
    Running,
    WorkerInfo,
    actors,
    broker,
    crash_loops,
    describe,
    last_day,
    queues,
    signature_of,
    stats,
    workers,
)
from .pausing import UnknownQueue, pause, resume

__all__ = [
    "ActorInfo",
    "BrokerInfo",
    "CrashLoop",
    "Figures",
    "Problem",
    "QueueInfo",
    "Report",
    "Running",
    "Selection",
    "UnknownQueue",
    "WorkerInfo",
    "actors",
    "broker",
    "cancel",
    "crash_loops",
    "dead_letters",
    "describe",
    "discard",
    "health",
    "last_day",
    "pause",
    "queues",
    "requeue",
    "reschedule",
    "resume",
    "run_now",
    "scheduled",
    "show",
    "signature_of",
    "stats",
    "workers",
]
