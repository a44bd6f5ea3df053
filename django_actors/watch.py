"""
What changed: the paths of Python files that were edited, for ``--watch``.

Django's own reloader watches the modules that this process has imported. That misses
what matters here: a file that could not be imported when we started, because its
mistake is the reason for the edit, and new files. So this is a scan of the directory,
which costs a few milliseconds for a thousand files, and needs nothing installed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger("django_actors.MainProcess")

INTERVAL_S = 0.25
# A tree so large that a scan takes long is scanned less often: a fifth of a core at most.
REST = 4
IGNORED = {"__pycache__", "node_modules"}

Snapshot = dict[str, tuple[int, int, int]]


class Watcher(threading.Thread):
    """
    Calls back with the paths that changed, from a thread of its own.

    Files are compared with what they were when the watcher was made.
    """

    def __init__(self, directory: str, callback: Callable[[list[str]], None]) -> None:
        super().__init__(name="Watcher", daemon=True)
        self._changes = changes(directory, wait=self._wait)
        self._callback = callback
        self._stopped = threading.Event()
        next(self._changes)

    def run(self) -> None:
        for paths in self._changes:
            if paths:
                self._callback(paths)

    def stop(self) -> None:
        self._stopped.set()

    def _wait(self, seconds: float) -> bool:
        return not self._stopped.wait(seconds)


def changes(directory: str, *, wait: Callable[[float], bool]) -> Iterator[list[str]]:
    """
    Yield the paths that were added, edited or removed, after each scan.

    Args:
        directory: Where to look; hidden directories and virtual environments in it
            are left out.

        wait: Called with seconds between two scans; returns False to end.

    Yields:
        Sorted paths; the first list, and most others, are empty.
    """
    before, seconds = _timed_scan(directory)
    yield []
    while wait(max(INTERVAL_S, REST * seconds)):
        now, seconds = _timed_scan(directory)
        yield sorted({path for path, _ in before.items() ^ now.items()})
        before = now


def scan(directory: str) -> Snapshot:
    """Return what tells one version of a file from the next, for each Python file."""
    found: Snapshot = {}
    to_do = [directory]
    while to_do:
        to_do += _scan_one(to_do.pop(), found)
    return found


def _timed_scan(directory: str) -> tuple[Snapshot, float]:
    start = time.monotonic()
    found = scan(directory)
    return found, time.monotonic() - start


def _scan_one(directory: str, found: Snapshot) -> list[str]:
    """Note the files of one directory; return the directories in it."""
    try:
        with os.scandir(directory) as entries:
            listed = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        # It was removed while we looked, or is none of our business.
        return []
    if any(entry.name == "pyvenv.cfg" for entry in listed):
        return []
    for entry in listed:
        if entry.name.endswith(".py"):
            _note(entry, found)
    return [entry.path for entry in listed if _is_source_directory(entry)]


def _note(entry: os.DirEntry[str], found: Snapshot) -> None:
    try:
        stat = entry.stat()
    except OSError:
        return
    found[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _is_source_directory(entry: os.DirEntry[str]) -> bool:
    # Links are not followed, so a loop of them cannot hold up the scan.
    return entry.name not in IGNORED and entry.is_dir(follow_symlinks=False)
