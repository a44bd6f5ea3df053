"""
What a trial with faults has cost, as a line of a table.

The ledger is the witness: it is written by the actors, and the engine knows nothing of it.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tests.processes.base import Entry

REPORT_VARIABLE = "ACTORS_TEST_REPORT"


@dataclass(frozen=True)
class Figures:
    """
    One trial.

    Attributes:
        sent: Messages.

        ran: Messages that came to their end at least once.

        lost: Messages that neither came to their end nor are a dead letter.

        again: Runs that began beyond the first one, and were no retry.

        moved: Of those, messages that no killed process ran, but may have been moving from the
            waiting room to the broker: published, and its row not deleted yet.

        unfounded: Of those, messages for which there is no reason at all.

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

    def write(self) -> None:
        """Append the line to the file that the environment names, if it does."""
        if path := os.environ.get(REPORT_VARIABLE):
            with Path(path).open("a") as file:
                file.write(f"{self}\n" if file.tell() else f"{heading()}\n{self}\n")

    def __str__(self) -> str:
        values = (getattr(self, field.name) for field in fields(self))
        cells = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        return f"| {' | '.join(cells)} |"


def heading() -> str:
    """Return the first two lines of the table."""
    names = [field.name.replace("_s", " (s)").replace("_", " ") for field in fields(Figures)]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


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
    ended = {entry.key for entry in entries if entry.what == "ran"}
    return Figures(
        broker,
        fault,
        sent=len(keys),
        ran=len(ended & set(keys)),
        lost=len(set(keys) - ended - set(dead)),
        again=sum(again.values()),
        moved=len(repeated & set(movable)),
        unfounded=len(repeated - set(movable)),
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
    return set(find_again(entries)) - _in_hands(entries, kills)


# What a process has done, but not acknowledged: a batch waits for no longer than this, seconds.
UNACKNOWLEDGED_S = 1.0


def _in_hands(entries: Sequence[Entry], kills: Mapping[int, float]) -> set[str]:
    """Return what killed processes ran when they died, or had just done."""
    ends: dict[tuple[int, str], list[float]] = defaultdict(list)
    for entry in entries:
        if entry.what in ("ran", "failed"):
            ends[entry.pid, entry.key].append(entry.at)
    found = set()
    for entry in entries:
        if entry.what == "began" and entry.pid in kills:
            end = max(ends.get((entry.pid, entry.key), [kills[entry.pid]]))
            if end > kills[entry.pid] - UNACKNOWLEDGED_S:
                found.add(entry.key)
    return found


def _longest_gap(moments: list[float]) -> float:
    moments = sorted(moments)
    return max((b - a for a, b in zip(moments, moments[1:], strict=False)), default=0.0)


def _longest_recovery(entries: Sequence[Entry], kills: Mapping[int, float]) -> float:
    began = sorted(entry.at for entry in entries if entry.what == "began")
    waits = (
        min((moment - at for moment in began if moment > at), default=0.0) for at in kills.values()
    )
    return max(waits, default=0.0)
