"""
How ``manage.py actors`` writes: tables of plain text for people, JSON for programs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django_actors import clock

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))

# What would move the cursor or the colors of a terminal, or break a line of a table.
_CONTROLS = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0))}


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: int = 0) -> str:
    """
    Return lines of a table.

    Args:
        numbers: How many of the first columns are names; the others are aligned to the right,
            up to the last one.
    """
    cells = [list(header), *([plain(each) for each in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(row, widths, numbers) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int], numbers: int) -> str:
    aligned = [
        text.rjust(width) if numbers and numbers <= index < len(row) - 1 else text.ljust(width)
        for index, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def plain(value: object, limit: int = 100) -> str:
    """Return a value on one line, without anything a terminal would act upon."""
    text = "-" if value is None else str(value)
    text = text.translate(_CONTROLS)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def block(text: str) -> str:
    """Return text of several lines, without anything a terminal would act upon."""
    return "\n".join(plain(line, 10_000) for line in text.splitlines())


def duration(ms: int | None) -> str:
    """Return a duration in its largest unit: ``3h``."""
    if ms is None:
        return "-"
    seconds = ms // clock.MS_PER_S
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def percent(share: float | None) -> str:
    """Return a share as a percentage."""
    return "-" if share is None else f"{share:.1%}"


def as_json(value: Any) -> str:
    """Return a value as JSON; what has no JSON form as its text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
