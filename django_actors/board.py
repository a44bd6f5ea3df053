"""
The board: what a worker process runs, readable from outside and after its death.

One small memory-mapped file for each worker process. The supervisor creates it,
the worker writes it, and the supervisor (or whoever recovers a dead worker) reads
it. There is a slot for each worker thread, and a ring of the receipts of messages
that were done but perhaps not yet acknowledged.

The worker may be killed between any two bytes it writes. So a record counts only
once its last field is there: the state of a slot, the number of a receipt.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import mmap
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

TEXT_SIZE = 64
DIRECTORY_PREFIX = "django_actors-"
LOCK = "lock"
ABANDONED_AFTER_S = 60.0

# Twice what a worker claims for each of its threads, running and ahead (see intake.py): so many
# are done at most while the last ones are being acknowledged, and there is a margin.
RECEIPTS_PER_THREAD = 128

_MAGIC = b"DJACTBD1"
_HEADER = struct.Struct(f"<8sII{TEXT_SIZE}s")  # magic, slots, receipts, owner
_OWNER = struct.Struct(f"<{TEXT_SIZE}s")
_OWNER_AT = _HEADER.size - _OWNER.size
# Packing writes zeros first and then field by field, so the last field says that
# the ones before it are whole.
_SLOT = struct.Struct(f"<dd{TEXT_SIZE}sBB")  # began_at, deadline, id, overdue, busy
_RECEIPT = struct.Struct(f"<{TEXT_SIZE}sQ")  # receipt, number
_NUMBER = struct.Struct("<Q")
_NUMBER_AT = TEXT_SIZE
_DEADLINE = struct.Struct("<d")
_DEADLINE_AT = 8
_OVERDUE_AT = _SLOT.size - 2
_BUSY_AT = _SLOT.size - 1
_NEVER = math.inf


class BoardError(Exception):
    """A file is not a board, or a text does not fit on one."""


@dataclass(frozen=True)
class Running:
    """
    A message that a worker thread has begun and not ended.

    ``began_at`` and ``deadline`` are seconds of ``time.monotonic()``, which all
    processes of a machine share; a deadline of ``None`` is no time limit.
    """

    slot: int
    message_id: str
    began_at: float
    deadline: float | None
    overdue: bool


class Board:
    """
    The slots and receipts of one worker process.

    Each slot belongs to one thread; different threads may write at the same time.
    Texts (ids, receipts, the owner) are ASCII, up to 64 characters, never empty.
    """

    def __init__(self, path: str, memory: mmap.mmap, *, threads: int, receipts: int) -> None:
        self.path = path
        self.threads = threads
        self._memory = memory
        self._slots = [_HEADER.size + slot * _SLOT.size for slot in range(threads)]
        self._ring_at = _HEADER.size + threads * _SLOT.size
        self._ring_size = receipts
        self._numbers = itertools.count(1)

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, threads: int, receipts: int | None = None
    ) -> Self:
        """
        Make a new, empty board.

        Args:
            receipts: Size of the ring: as many as a worker may have claimed, or more.

        Raises:
            FileExistsError: There is a file at *path*.

            OSError: The file could not be written.
        """
        receipts = receipts or threads * RECEIPTS_PER_THREAD
        size = _HEADER.size + threads * _SLOT.size + receipts * _RECEIPT.size
        header = _HEADER.pack(_MAGIC, threads, receipts, b"")
        # Every byte is written now: a hole that a full disk cannot fill would
        # end the worker with SIGBUS later.
        with open(path, "xb") as file:
            file.write(header.ljust(size, b"\0"))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """
        Open a board that exists, for reading and writing.

        Raises:
            FileNotFoundError: There is none at *path*.

            BoardError: The file is not a board.
        """
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _HEADER.size:
                raise BoardError(f"{os.fspath(path)!r} is not a board: it has only {size} bytes.")
            memory = mmap.mmap(file.fileno(), size)
        magic, threads, receipts, _owner = _HEADER.unpack_from(memory)
        expected = _HEADER.size + threads * _SLOT.size + receipts * _RECEIPT.size
        if magic != _MAGIC or size != expected:
            memory.close()
            raise BoardError(f"{os.fspath(path)!r} is not a board of this version.")
        return cls(os.fspath(path), memory, threads=threads, receipts=receipts)

    @property
    def owner(self) -> str:
        """The id under which the worker claims messages; empty until it has one."""
        return _text(_OWNER.unpack_from(self._memory, _OWNER_AT)[0])

    @owner.setter
    def owner(self, owner: str) -> None:
        _OWNER.pack_into(self._memory, _OWNER_AT, _bytes(owner))

    def begin(self, slot: int, message_id: str, deadline: float | None) -> None:
        """
        Say that *slot* runs a message from now on.

        Args:
            slot: From 0 to ``threads - 1``; it must be idle.

            message_id: Up to 64 ASCII characters.

            deadline: Seconds of ``time.monotonic()``; ``None`` for no limit.
        """
        _SLOT.pack_into(
            self._memory,
            self._slots[slot],
            time.monotonic(),
            _NEVER if deadline is None else deadline,
            _bytes(message_id),
            0,
            1,
        )

    def end(self, slot: int, receipt: str | None = None) -> None:
        """Say that *slot* is idle, and that *receipt* stands for work that is done."""
        self._memory[self._slots[slot] + _BUSY_AT] = 0
        if receipt is not None:
            self._note(receipt)

    def extend(self, slot: int, deadline: float | None) -> None:
        """Give the message of *slot* another deadline."""
        at = self._slots[slot] + _DEADLINE_AT
        _DEADLINE.pack_into(self._memory, at, _NEVER if deadline is None else deadline)

    def mark_overdue(self, slot: int) -> None:
        """Say that the message of *slot* was ended because it outran its time limit."""
        self._memory[self._slots[slot] + _OVERDUE_AT] = 1

    def running(self) -> list[Running]:
        """Return the messages that were begun and not ended, by slot."""
        return [found for slot in range(self.threads) if (found := self._read(slot))]

    def receipts(self) -> list[str]:
        """Return the receipts of the last messages that were done, oldest first."""
        entries = (
            _RECEIPT.unpack_from(self._memory, self._ring_at + place * _RECEIPT.size)
            for place in range(self._ring_size)
        )
        written = sorted((number, text) for text, number in entries if number)
        return [_text(text) for _number, text in written]

    def close(self) -> None:
        """Let go of the memory; the file stays."""
        self._memory.close()

    def unlink(self) -> None:
        """Remove the file, if nobody else did; the memory stays readable until closed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _note(self, receipt: str) -> None:
        # next() of a count is one step for all threads, so no two share a place.
        number = next(self._numbers)
        place = number % self._ring_size
        at = self._ring_at + place * _RECEIPT.size
        # The record that was here is void before its text is gone.
        _NUMBER.pack_into(self._memory, at + _NUMBER_AT, 0)
        _RECEIPT.pack_into(self._memory, at, _bytes(receipt), number)

    def _read(self, slot: int) -> Running | None:
        began_at, deadline, message_id, overdue, busy = _SLOT.unpack(self._settled(slot))
        if not busy:
            return None
        limit = None if deadline == _NEVER else deadline
        return Running(slot, _text(message_id), began_at, limit, bool(overdue))

    def _settled(self, slot: int) -> bytes:
        """Return the bytes of a slot, read until two readings agree."""
        # A living worker writes while we read; half of one message and half of the
        # next would put the blame on the wrong one.
        at = self._slots[slot]
        before = self._memory[at : at + _SLOT.size]
        while (after := self._memory[at : at + _SLOT.size]) != before:
            before = after
        return after


@contextlib.contextmanager
def board_directory() -> Iterator[str]:
    """
    Make a directory for boards, and remove it at the end of the block.

    What a supervisor that was killed has left behind is removed, too.
    """
    place = memory_directory()
    _remove_abandoned(place)
    directory = tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=place)
    # The system drops the lock with the last process that has it, however that ends. Workers
    # that were forked have it too: what they write on is not abandoned.
    lock = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def memory_directory() -> str:
    """Return where temporary files live, in memory if there is such a place."""
    # On a disk, the kernel would write the boards back again and again, and a
    # worker thread could wait for it.
    path = "/dev/shm"
    return path if os.access(path, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _remove_abandoned(place: str) -> None:
    with os.scandir(place) as entries:
        directories = [entry.path for entry in entries if entry.name.startswith(DIRECTORY_PREFIX)]
    for directory in directories:
        # Somebody else's, or just being removed by another supervisor.
        with contextlib.suppress(OSError):
            if _is_abandoned(os.path.join(directory, LOCK)):
                shutil.rmtree(directory)


def _is_abandoned(lock: str) -> bool:
    # A new one may not be locked yet.
    if time.time() - os.stat(lock).st_mtime < ABANDONED_AFTER_S:
        return False
    fd = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _bytes(text: str) -> bytes:
    data = text.encode("ascii")
    if len(data) > TEXT_SIZE:
        raise BoardError(f"{text!r} has {len(data)} characters; a board takes {TEXT_SIZE}.")
    return data


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii")
