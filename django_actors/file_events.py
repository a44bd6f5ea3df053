"""
Hear of writes to files where the system tells of them: inotify, on Linux.

Elsewhere, and where the system has no more of these to give, nothing is ever heard. Nor is it of
what another machine writes to a file system that both have mounted.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

_IN_MODIFY = 0x2
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

# More than one read may hold; what is left ends the next sleep at once.
_READ_SIZE = 64 * 1024


class FileEvents:
    """
    The writes to some files since they were last asked for.

    Attributes:
        descriptors: What a sleeper may wait for together with others; empty where
            nothing is told.
    """

    def __init__(self) -> None:
        self.descriptors: tuple[int, ...] = ()

    def watch(self, paths: Iterable[str]) -> None:
        """Tell of writes to these files, too, as far as they are there; again does no harm."""
        self.descriptors = self.descriptors or _open()
        for descriptor in self.descriptors:
            for path in paths:
                _libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY)

    def take(self) -> bool:
        """Return whether anything was written since the last call."""
        heard = False
        for descriptor in self.descriptors:
            try:
                heard = bool(os.read(descriptor, _READ_SIZE))
            except BlockingIOError:
                continue
        return heard

    def close(self) -> None:
        """Hear nothing any more."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


_libc = ctypes.CDLL(None, use_errno=True)


def _open() -> tuple[int, ...]:
    if sys.platform != "linux":
        return ()
    # Minus one where a user has too many already.
    descriptor = int(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
    return (descriptor,) if descriptor >= 0 else ()
