"""
The pid file: tells who runs, and keeps a second one out.

The lock on the file decides, not the number in it: the system drops the lock with
the process, however that ends, while a number may have been given to somebody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from functools import partial

from .forking import undone_in_children


class PidFileError(Exception):
    """The pid file belongs to a running process, or cannot be written."""


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """
    Hold *path*, with this process's number in it, as long as the block runs.

    A file left by a process that is gone is taken over.

    Raises:
        PidFileError: Somebody else holds it, or it cannot be written.
    """
    fd = _lock(path)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        # The lock lasts as long as anybody has the file open.
        with undone_in_children(partial(os.close, fd)):
            yield
    finally:
        # Still locked: whoever opens it from here on makes a new file.
        if _is_at(path, fd):
            os.unlink(path)
        os.close(fd)


def _lock(path: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise PidFileError(f"The pid file {path!r} cannot be opened: {error}.") from error
        if _try_lock(fd, path):
            return fd
        # Its owner removed it between our open and our lock.
        os.close(fd)


def _try_lock(fd: int, path: str) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise PidFileError(
            f"Process {pid} runs with the pid file {path!r} already. "
            "Stop it first, or name another file with --pid-file."
        ) from error
    return _is_at(path, fd)


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
