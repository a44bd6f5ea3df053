"""
What failures have in common: an actor, a class of exception, and a place in the project.

A place is a function, not a line: the next deploy moves lines, and the failure is the same.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

# Hexadecimal digits: 128 bits, which nobody finds twice.
FINGERPRINT_LENGTH = 32

_PACKAGE = f"{Path(__file__).parent}/"
_STDLIB = f"{sysconfig.get_path('stdlib')}/"

# Also those of another machine: what is shown was written by a worker.
_FOREIGN = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3\.\d+)[/\\]|^<")


class Place(NamedTuple):
    """
    Where an exception was raised.

    Attributes:
        function: Its module and qualified name; an empty text if nobody knows.

        line: Its number, from 1.
    """

    function: str
    line: int

    def __str__(self) -> str:
        return f"{self.function}:{self.line}" if self.function else ""


NOWHERE = Place("", 0)


@lru_cache(maxsize=1_000)
def is_of_project(filename: str) -> bool:
    """Return whether a file is the project's own: not Python's, not a package's, not ours."""
    return not (filename.startswith((_PACKAGE, _STDLIB)) or _FOREIGN.search(filename))


def find_place(error: BaseException) -> Place:
    """Return the innermost place of the project in a traceback, else the innermost one."""
    innermost = of_project = NOWHERE
    for frame, line in _walk(error.__traceback__):
        innermost = _place(frame, line)
        if is_of_project(frame.f_code.co_filename):
            of_project = innermost
    return of_project if of_project.function else innermost


def _walk(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _place(frame: FrameType, line: int) -> Place:
    module = frame.f_globals.get("__name__", "?")
    return Place(f"{module}.{frame.f_code.co_qualname}", line)


def fingerprint(actor_name: str, error_class: str, place: Place) -> str:
    """Return what failures of an actor have in common that are the same but for their data."""
    text = "\0".join((actor_name, error_class, place.function))
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
