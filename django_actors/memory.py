"""
How much memory this process uses.
"""

from __future__ import annotations

import contextlib
import os
import sys

MEGABYTE = 1024 * 1024


def resident_bytes() -> int:
    """Return how much memory this process occupies now; at most so far, outside Linux."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_megabytes() -> float:
    """Return what ``resident_bytes()`` does, in megabytes."""
    return resident_bytes() / MEGABYTE
