"""
Which threads may be interrupted at any bytecode: those that run actors.

What many threads share is not for them to work on: an interrupt in the middle leaves half of
the work, and a lock that nobody gives back.
"""

from __future__ import annotations

import threading


class _Thread(threading.local):
    is_interruptible = False


_thread = _Thread()


def expect_interrupts() -> None:
    """Say that another thread may raise an ``Interrupt`` in the calling one from now on."""
    _thread.is_interruptible = True


def is_interruptible() -> bool:
    """Return whether another thread may raise an ``Interrupt`` in the calling one."""
    return _thread.is_interruptible
