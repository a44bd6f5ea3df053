"""What a tree of processes uses, read from /proc."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    session: int
    ticks: int
    is_over: bool


def tree_of(roots: Iterable[int]) -> list[int]:
    """Return the processes that are alive of the trees (and sessions) that start there."""
    return [process.pid for process in _find(roots)]


def cpu_s(roots: Iterable[int]) -> float:
    """Return the seconds of CPU that the trees have used, with those of the dead."""
    return sum(process.ticks for process in _find(roots)) / _TICKS


def exact_cpu_s(roots: Iterable[int]) -> float:
    """Return the seconds of CPU of the threads that are alive: exact where ``cpu_s()`` counts."""
    return sum(_thread_ns(process.pid) for process in _find(roots)) / 1e9


def memory_mb(roots: Iterable[int]) -> float:
    """Return the memory of the trees; what processes share is counted once (PSS)."""
    return sum(_pss_kb(process.pid) for process in _find(roots)) / 1_024


def end(roots: Iterable[int]) -> None:
    """Kill the trees, with what is started in them meanwhile."""
    known = set(roots)
    while alive := {process.pid for process in _find(known) if not process.is_over}:
        known |= alive
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _find(roots: Iterable[int]) -> list[_Process]:
    everybody = [process for entry in Path("/proc").iterdir() if (process := _read(entry))]
    found = set(roots)
    sessions = set(found)
    grown = True
    while grown:
        before = len(found)
        found |= {each.pid for each in everybody if each.parent in found}
        found |= {each.pid for each in everybody if each.session in sessions}
        grown = len(found) > before
    return [each for each in everybody if each.pid in found]


def _read(entry: Path) -> _Process | None:
    if not entry.name.isdigit():
        return None
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Of its own and of its dead children; see proc(5).
    ticks = sum(map(int, fields[11:15]))
    over = fields[0] in "ZX"
    return _Process(int(entry.name), int(fields[1]), int(fields[3]), ticks, over)


def _thread_ns(pid: int) -> int:
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        # A thread may have ended since.
        with contextlib.suppress(OSError):
            total += int(file.read_text().split()[0])
    return total


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
