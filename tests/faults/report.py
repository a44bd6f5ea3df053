"""
What a trial has cost, as a line of a table.

The ledger is the witness: it is written by the actors, and the engine knows nothing of it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from django_actors.conf import settings
from tests.processes.base import Entry

REPORT_VARIABLE = "ACTORS_TEST_REPORT"

UNITS = ("s", "ms", "MiB")


class Line:
    """A line of a table; a dataclass, whose fields are the columns."""

    # The kind that was written last: where another one begins, so does another table.
    _last: ClassVar[type[Line] | None] = None

    def write(self) -> None:
        """Append the line to the file that the environment names, if it does."""
        if path := os.environ.get(REPORT_VARIABLE):
            heading = "" if Line._last is type(self) else f"\n{self.heading()}\n"
            Line._last = type(self)
            with Path(path).open("a") as file:
                file.write(f"{heading}{self}\n")

    @classmethod
    def heading(cls) -> str:
        """Return the first two lines of the table."""
        names = [_title(field.name) for field in fields(cls)]  # type: ignore[arg-type]
        return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"

    def __str__(self) -> str:
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return f"| {' | '.join(map(_cell, values))} |"


def _title(name: str) -> str:
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')} ({unit})" if unit in UNITS else name.replace("_", " ")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class StreamFigures(Line):
    """
    A stream of messages without a fault.

    Attributes:
        worker: Whether one process ran them all, or it was replaced on the way.

        processes: How many ran messages, one after the other.

        memory_before_MiB: Of the supervisor, and of its worker if that stays: when it was warm.

        memory_after_MiB: The same at the end.

        threads: As the memory, before and after.

        descriptors: As ``threads``.
    """

    broker: str
    worker: str
    sent: int
    ran: int
    lost: int
    again: int
    processes: int
    memory_before_MiB: float
    memory_after_MiB: float
    threads: str
    descriptors: str
    minutes: float


@dataclass(frozen=True)
class SlowFigures(Line):
    """Messages of no length through a server that is far away."""

    broker: str
    round_trip_ms: float
    ran: int
    lasted_s: float


@dataclass(frozen=True)
class Figures(Line):
    """
    A trial in which processes are killed.

    Attributes:
        sent: Messages.

        ran: Messages that came to their end at least once.

        lost: Messages that neither came to their end nor are a dead letter.

        again: Runs that began beyond the first one, and were no retry.

        moved: Of those, messages that no killed process ran, but may have been moving from the
            waiting room to the broker: published, and its row not deleted yet.

        unfounded: Of those, messages for which there is no reason at all; and dead letters that
            not so many killed processes ran as the limit says.

        dead: Dead letters.

        stall_s: The longest time in which no message ended, seconds.

        recovery_s: The longest time from a kill until another process began a message, seconds.
    """

    broker: str
    fault: str
    sent: int
    ran: int
    lost: int
    again: int
    moved: int
    unfounded: int
    dead: int
    stall_s: float
    recovery_s: float


def measure(
    broker: str,
    fault: str,
    *,
    keys: Collection[str],
    entries: Sequence[Entry],
    dead: Collection[str],
    kills: Mapping[int, float],
    movable: Collection[str] = (),
) -> Figures:
    """
    Count what became of messages.

    Args:
        keys: What was sent.

        entries: The ledger; ``began`` is noted once a run, ``failed`` where it asks for a retry.

        dead: Keys of the dead letters.

        kills: Process ids and when they were killed, seconds since 1970.

        movable: Keys of messages that waited for a time, where that and the broker are two
            places.
    """
    again = find_again(entries)
    repeated = find_unfounded(entries, kills)
    accused = find_accused(dead, entries, kills)
    ended = {entry.key for entry in entries if entry.what == "ran"}
    return Figures(
        broker,
        fault,
        sent=len(keys),
        ran=len(ended & set(keys)),
        lost=len(set(keys) - ended - set(dead)),
        again=sum(again.values()),
        moved=len(repeated & set(movable)),
        unfounded=len(repeated - set(movable)) + len(accused),
        dead=len(dead),
        stall_s=_longest_gap([entry.at for entry in entries if entry.what == "ran"]),
        recovery_s=_longest_recovery(entries, kills),
    )


def find_again(entries: Sequence[Entry]) -> dict[str, int]:
    """Return how many runs each message had beyond its first one and its retries."""
    began = Counter(entry.key for entry in entries if entry.what == "began")
    failed = Counter(entry.key for entry in entries if entry.what == "failed")
    again = {key: times - 1 - failed[key] for key, times in began.items()}
    return {key: times for key, times in again.items() if times > 0}


def find_unfounded(entries: Sequence[Entry], kills: Mapping[int, float]) -> set[str]:
    """Return the messages that ran again though no killed process had them in its hands."""
    return set(find_again(entries)) - _deaths(entries, kills).keys()


def find_accused(
    dead: Collection[str], entries: Sequence[Entry], kills: Mapping[int, float]
) -> set[str]:
    """Return the dead letters that ended fewer processes than it takes."""
    deaths = _deaths(entries, kills)
    return {key for key in dead if len(deaths.get(key, ())) < settings.CRASH_LIMIT}


# What a process has done, but not acknowledged: a batch waits for no longer than this, seconds.
UNACKNOWLEDGED_S = 1.0


def _deaths(entries: Sequence[Entry], kills: Mapping[int, float]) -> dict[str, set[int]]:
    """Return the killed processes that ran each message when they died, or had just done so."""
    ends: dict[tuple[int, str], list[float]] = defaultdict(list)
    for entry in entries:
        if entry.what in ("ran", "failed"):
            ends[entry.pid, entry.key].append(entry.at)
    found: dict[str, set[int]] = defaultdict(set)
    for entry in entries:
        if entry.what == "began" and entry.pid in kills:
            # Of this run: the process may have run it before, and failed.
            own = (at for at in ends[entry.pid, entry.key] if at >= entry.at)
            end = min(own, default=kills[entry.pid])
            if end > kills[entry.pid] - UNACKNOWLEDGED_S:
                found[entry.key].add(entry.pid)
    return dict(found)


def _longest_gap(moments: list[float]) -> float:
    moments = sorted(moments)
    return max((b - a for a, b in zip(moments, moments[1:], strict=False)), default=0.0)


def _longest_recovery(entries: Sequence[Entry], kills: Mapping[int, float]) -> float:
    began = sorted(entry.at for entry in entries if entry.what == "began")
    waits = (
        min((moment - at for moment in began if moment > at), default=0.0) for at in kills.values()
    )
    return max(waits, default=0.0)
