"""
What a family of processes has of memory, threads and descriptors; read from /proc.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Vitals:
    """
    What some processes have together.

    Attributes:
        memory_kib: What is theirs alone, kibibytes: pages of files are shared, also with
            strangers that come and go.
    """

    processes: int = 0
    memory_kib: int = 0
    threads: int = 0
    descriptors: int = 0

    def __add__(self, other: Vitals) -> Vitals:
        return Vitals(
            self.processes + other.processes,
            self.memory_kib + other.memory_kib,
            self.threads + other.threads,
            self.descriptors + other.descriptors,
        )


def look_at(*pids: int) -> Vitals:
    """Return the vitals of processes; those that have ended count for nothing."""
    total = Vitals()
    for pid in pids:
        with suppress(OSError):
            total += _look_at_one(PROC / str(pid))
    return total


def family(pid: int) -> list[int]:
    """Return *pid* and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of a program, which may contain anything, ends at the last bracket.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _look_at_one(directory: Path) -> Vitals:
    lines = directory.joinpath("smaps_rollup").read_text().splitlines()
    [memory] = [line for line in lines if line.startswith("Pss_Anon:")]
    return Vitals(
        processes=1,
        memory_kib=int(memory.split()[1]),
        threads=len(list(directory.joinpath("task").iterdir())),
        descriptors=len(list(directory.joinpath("fd").iterdir())),
    )
