"""
Portions of a sequence, for what takes only so much at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield *items* in order, *size* of them at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
