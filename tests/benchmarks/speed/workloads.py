"""What is measured, in the order in which it is measured and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from . import measures
from .contenders import FLOOR, OURS, OURS_CLASSIC, PROCESSES, Contender, Crew
from .contest import Contest
from .measures import Figures

# Whose rounds take several times as long as those of the others.
SLOW_SHARE = 0.05


@dataclass(frozen=True)
class Figure:
    """
    A column of a table: what it is called there, its unit, and how it is printed.

    Args:
        in_django: Whether it compares only those whose workers are in a Django project.
    """

    title: str
    digits: int = 0
    more_is_better: bool = True
    in_django: bool = False


@dataclass(frozen=True)
class Workload:
    """
    A thing to measure.

    Args:
        run: Measures a contender once; is told how many messages a full drain has.

        figures: What is told of it, by the names that *run* gives them.

        rounds: How often, if the command does not say it.

        processes: How many the workers have.

        lean: Whether who has no threads gets as many processes, and not as many slots.

        alone: Whether it needs workers of its own; the others follow one another on the same.

        has_floor: Whether the bare loop takes part.

        names: Of the engines that can do it; all of them if that is empty.

        variants: What the figures called ``name@variant`` were measured with; a row each.
    """

    title: str
    run: Callable[[Contest, int], Figures]
    figures: dict[str, Figure]
    rounds: int = 2
    processes: int = PROCESSES
    lean: bool = False
    alone: bool = False
    has_floor: bool = True
    names: tuple[str, ...] = ()
    variants: Mapping[str, str] = field(default_factory=dict)

    def crew(self, contender: Contender) -> Crew:
        return contender.crew(self.processes, lean=self.lean)

    def takes(self, contender: Contender) -> bool:
        if contender.name == FLOOR and not self.has_floor:
            return False
        return not self.names or contender.name in self.names

    def rounds_of(self, contender: Contender) -> int:
        """Return how often by default; half as often, rounded up, if it is slow."""
        return -(-self.rounds // 2) if contender.share <= SLOW_SHARE else self.rounds


_RATE = Figure("messages a second")
_CPU = Figure("worker CPU, µs a message", more_is_better=False)
_LATE = {
    "p50": Figure("p50, ms", digits=1, more_is_better=False),
    "p99": Figure("p99, ms", digits=1, more_is_better=False),
}
_SENT = {
    "one_by_one": Figure("one by one, a second"),
    "batches": Figure("in batches of 100, a second"),
}

WORKLOADS = {
    "enqueue": Workload(
        "Enqueue",
        measures.enqueue,
        {
            "one_by_one": _SENT["one_by_one"],
            "threads": Figure("by 8 threads, a second"),
            "batches": _SENT["batches"],
        },
        rounds=5,
        alone=True,
    ),
    "idle": Workload(
        "Boot, and workers that are idle",
        measures.idle,
        {
            "boot_s": Figure("boot to first message, s", 2, False, in_django=True),
            "memory_mb": Figure("memory of the tree, MB", 0, False, in_django=True),
            "idle_percent": Figure("idle, % of a core", 2, False),
        },
        lean=True,
        has_floor=False,
    ),
    "latency": Workload("Latency of an idle worker", measures.latency, _LATE, has_floor=False),
    "drain": Workload(
        "Drain of no-op messages, 2 × 8 threads",
        measures.drain,
        {"rate": _RATE, "cpu_us": _CPU},
        rounds=5,
    ),
    "waiting": Workload(
        "Messages that wait 10 ms",
        measures.waiting,
        {"share": Figure("% of the ideal", digits=2)},
    ),
    "computing": Workload(
        "Messages that compute",
        measures.computing,
        {
            "rate": _RATE,
            "share": Figure("% of the cores' time in the function", digits=1),
        },
    ),
    "delayed": Workload(
        "Messages that become due over 5 s",
        measures.delayed,
        _LATE,
        rounds=1,
        has_floor=False,
        names=(
            OURS,
            OURS_CLASSIC,
            "celery",
            "django-ox",
            "django-tasks-db",
            "dramatiq",
            "huey",
            "procrastinate",
        ),
    ),
    "drain_one": Workload(
        "Drain of no-op messages, 1 × 8 threads",
        measures.drain,
        {"rate": _RATE, "cpu_us": _CPU},
        processes=1,
    ),
    "far": Workload(
        "Drain beside 100,000 messages that are due tomorrow",
        measures.far,
        {"rate": _RATE, "cpu_us": _CPU},
        alone=True,
        names=(OURS,),
        variants={"none": "none", "far": "100,000"},
    ),
    "backlog": Workload(
        "Enqueue and drain with a backlog",
        measures.backlog,
        {**_SENT, "rate": Figure("drain, messages a second")},
        rounds=3,
        alone=True,
        names=(OURS, FLOOR),
        variants={f"{count}": f"{count:,}" for count in measures.BACKLOGS},
    ),
}
