"""
What to do about an error of a connection: the half of its sentence that the library leaves out.
"""

from __future__ import annotations

import socket

_WHERE = "DJANGO_ACTORS['BROKER']"


def cure_of(error: BaseException | None) -> str:
    """Return a sentence that begins with a space, or nothing where the cure is not known."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return f" Correct the host in {_WHERE}."
        if isinstance(error, ConnectionRefusedError):
            return f" Start the server, or correct the host and the port in {_WHERE}."
        if isinstance(error, TimeoutError):
            return f" Look whether the server of {_WHERE} runs and can be reached from here."
        error = error.__cause__ or error.__context__
    return ""
