"""
Fuzz the decoder of messages for as long as you like, outside of the test-suite.

It needs atheris (``pip install atheris``), which has wheels for some versions of Python only:

    python -m tests.faults.fuzz_decoder -max_total_time=60 tests/faults/corpus

What fails is written to a file ``crash-...``; put it into the corpus when it is mended. The
test-suite tries every file of the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

from django_actors.errors import DecodeError
from django_actors.message import MAX_ID_LENGTH, MAX_NAME_LENGTH, Message

CORPUS = Path(__file__).parent / "corpus"


def check_body(body: bytes) -> None:
    """Decode *body*; raise if it is neither refused in order nor a message in every respect."""
    try:
        message = Message.decode(body)
    except DecodeError as error:
        assert str(error)
        return
    assert Message.decode(message.encode()) == message
    assert 0 < len(message.message_id) <= MAX_ID_LENGTH
    assert 0 < len(message.actor_name) <= MAX_NAME_LENGTH
    assert message.message_datetime.tzinfo is not None
    assert isinstance(message.args, tuple)
    assert str(message) and repr(message)


def main() -> None:
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, check_body)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
