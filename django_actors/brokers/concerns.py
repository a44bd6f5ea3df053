"""
What a broker finds unwise about its server.
"""

from __future__ import annotations

from typing import NamedTuple

from django_actors.errors import BrokerUnavailable, ServerTooOld


class Concern(NamedTuple):
    """
    What is unwise about a server where the project really runs, for ``check --deploy``.

    Attributes:
        id: Of the check, such as ``W101``; an ``I`` instead of the ``W`` only informs.
    """

    id: str
    text: str
    hint: str


def unchecked(error: BrokerUnavailable, *, id_too_old: str) -> Concern:
    """Return the concern of a server that could not be asked for its settings."""
    if isinstance(error, ServerTooOld):
        return Concern(id_too_old, str(error), "Until then nothing is sent, and nothing runs.")
    return Concern(
        "I101",
        f"The settings of the broker's server were not checked. {error}",
        "Run this where the server can be reached.",
    )
