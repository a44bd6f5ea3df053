"""
Log lines and prints that never stop the work.

The reader of our output can go away (a broken pipe), stop reading (a full pipe)
or have no room left (a full disk). None of these may kill a worker or hold it up,
so a thread of its own writes the log, and what cannot be written is counted.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO

LOGGER = "django_actors"
FORMAT = "[%(asctime)s] [PID %(process)d] [%(threadName)s] [%(name)s] [%(levelname)s] %(message)s"
BACKLOG = 10_000
WRITER = "LogWriter"
LONGEST_LINE = 8_192
REST_S = 0.2
LEVELS = {0: logging.WARNING, 1: logging.INFO}


class PatientHandler(logging.Handler):
    """
    Writes log lines from a thread of its own.

    ``emit`` never waits for the reader of the log. Lines beyond a backlog of
    10,000, and lines that the system refused, are dropped; the next line that can be
    written says how many.
    """

    _pid: int

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._put = _writer(stream)
        self._dropped = 0
        self._start()

    def handle(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]
        # Without the lock of other handlers: an interrupt that is raised in the thread
        # of an actor just after it took the lock would silence the process for ever.
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        if self._pid != os.getpid():
            # It rests, or was forked: that copies the queue but not the thread that empties it.
            self._start()
        if self._lines.qsize() >= BACKLOG:
            self._dropped += 1
            return
        try:
            self._lines.put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self, timeout: float = 1.0) -> bool:  # type: ignore[override] # tells more
        """Wait until all lines are written, at most *timeout* seconds; return whether they are."""
        if self._pid != os.getpid():
            return True
        written = threading.Event()
        self._lines.put(written)
        return written.wait(timeout)

    def rest(self) -> bool:
        """
        End the thread until there is another line, for who wants to fork.

        Returns:
            False if the reader of the log holds it up. No other thread may log meanwhile.
        """
        if not self.flush(REST_S):
            return False
        if self._pid == os.getpid():
            self._lines.put(None)
            self._writer.join()
            # No process has this number, so the next line starts another thread.
            self._pid = 0
        return True

    def _start(self) -> None:
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._writer = threading.Thread(
            target=self._write_lines, args=(self._lines,), name=WRITER, daemon=True
        )
        self._writer.start()
        # Last: another thread that finds it puts its line into the queue that is read.
        self._pid = os.getpid()

    def _write_lines(self, lines: queue.SimpleQueue[str | threading.Event | None]) -> None:
        while (line := lines.get()) is not None:
            if isinstance(line, str):
                self._write(line)
            else:
                line.set()

    def _write(self, line: str) -> None:
        dropped = self._dropped
        if dropped:
            line = f"({dropped} log lines before this one could not be written.)\n{line}"
        try:
            self._put(line + "\n")
        except (OSError, ValueError):  # ValueError: the stream was closed
            self._dropped += 1
        else:
            self._dropped -= dropped


class UnbreakableStream:
    """
    A text stream that swallows what the system refuses to write.

    It stands in for ``sys.stdout`` and ``sys.stderr``, so that a ``print()`` in an
    actor does not fail because nobody listens. Each thread's lines are written as a
    whole; otherwise those of many actors would run into one another.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = threading.local()

    def write(self, text: str) -> int:
        lines, newline, rest = (self._begun() + text).rpartition("\n")
        if len(rest) > LONGEST_LINE:
            newline, rest = newline + rest, ""
        self._line.begun = rest
        self._put(lines + newline)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        begun, self._line.begun = self._begun(), ""
        self._put(begun)
        with contextlib.suppress(OSError):
            self._stream.flush()

    def _begun(self) -> str:
        begun: str = getattr(self._line, "begun", "")
        return begun

    def _put(self, text: str) -> None:
        if text:
            with contextlib.suppress(OSError):
                self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _writer(stream: TextIO) -> Callable[[str], object]:
    # Past the stream's buffer: its lock, held in a write that never returns, would
    # abort the interpreter at its end.
    try:
        fd = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return stream.write
    return functools.partial(_write_all, fd)


def _write_all(fd: int, text: str) -> None:
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def setup(verbosity: int = 1) -> None:
    """
    Show the engine's log lines, unless the project has decided how.

    Handlers on the ``django_actors`` logger or the root logger are left alone, and so
    is a level that the project has set.

    Args:
        verbosity: As Django's ``--verbosity``: 0 warnings, 1 lifecycle, 2 and 3 everything.
    """
    logger = logging.getLogger(LOGGER)
    if logger.level == logging.NOTSET:
        logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = PatientHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)


def protect_output() -> None:
    """Make prints show at once, and make them harmless when the output is broken."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, UnbreakableStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
        setattr(sys, name, UnbreakableStream(stream))


def flush() -> None:
    """Write out what is still held back, and wait for it two seconds at most."""
    for handler in logging.getLogger(LOGGER).handlers:
        handler.flush()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def flush_streams() -> None:
    """Write out what was printed, so that a copy of this process does not write it once more."""
    for stream in (sys.stdout, sys.stderr):
        # None of our business if nobody reads it: it is dropped in the copy, too.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def rest() -> bool:
    """End the threads that write the log, until there is another line; return whether they did."""
    handlers = logging.getLogger(LOGGER).handlers
    return all(each.rest() for each in handlers if isinstance(each, PatientHandler))
