"""
How large the tests of faults are: for every day, or by ``runtests.py --faults=long``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """
    Numbers of one size.

    Attributes:
        trials: How often workers are killed in the same way.

        kills: SIGKILLs a trial.

        messages: Sent in a trial.

        stream: Messages that run through one supervisor without a fault.

        steps: Of a state machine.

        examples: Of a state machine, or of a fuzzed property.
    """

    trials: int
    kills: int
    messages: int
    stream: int
    steps: int
    examples: int


CI = Size(trials=1, kills=3, messages=450, stream=3_000, steps=20, examples=12)
LONG = Size(trials=5, kills=20, messages=5_000, stream=1_000_000, steps=60, examples=200)

IS_LONG = os.environ.get("ACTORS_TEST_FAULTS") == "long"


def _chosen() -> Size:
    size = LONG if IS_LONG else CI
    changes = {
        name: int(os.environ[f"ACTORS_TEST_FAULTS_{name.upper()}"])
        for name in vars(size)
        if f"ACTORS_TEST_FAULTS_{name.upper()}" in os.environ
    }
    return Size(**{**vars(size), **changes})


SIZE = _chosen()
