"""
Signatures: whether a message was written by somebody who knows the project's ``SECRET_KEY``.

The signature is an option of the message, so that a process that does not sign reads it
as any other. It is made whenever the wire form is, of all seven fields without itself,
and taken off where a worker reads the message.
"""

from __future__ import annotations

from django.core.signing import BadSignature, Signer

from .conf import settings
from .errors import UntrustedMessage
from .message import Message

OPTION = "signature"

# The key is derived from SECRET_KEY and this, so that no other signature of the project fits.
_SALT = "django_actors.signing"


def seal(message: Message) -> bytes:
    """
    Return the wire form of *message*, signed unless the setting ``SIGNING`` is off.

    A signature that it has already is replaced, or dropped: it may be one of other content.

    Raises:
        TypeError, ValueError: an argument or option has no JSON form.
    """
    bare = strip(message)
    body = bare.encode()
    if settings.SIGNING == "off":
        return body
    signature = _signer().signature(body.decode())
    return bare.copy(options={OPTION: signature}).encode()


def unseal(body: bytes) -> Message:
    """
    Return the message of a wire form, without its signature.

    Raises:
        DecodeError: *body* is no message.

        UntrustedMessage: its signature is missing or wrong, and ``SIGNING`` wants a good one.
    """
    message = Message.decode(body)
    signature = message.options.get(OPTION)
    mode = settings.SIGNING
    bare = strip(message)
    if mode == "off" or (mode == "sign" and signature is None):
        return bare
    if signature is None:
        raise UntrustedMessage(f"The message for {bare.actor_name!r} has no signature.", bare)
    if not _is_good(bare, signature):
        raise UntrustedMessage(
            f"The signature of the message for {bare.actor_name!r} is wrong: it was changed, "
            "or signed with a SECRET_KEY that is not among those of this process.",
            bare,
        )
    return bare


def strip(message: Message) -> Message:
    """Return *message* without a signature."""
    if OPTION not in message.options:
        return message
    options = {name: value for name, value in message.options.items() if name != OPTION}
    return Message(
        message.queue_name,
        message.actor_name,
        message.args,
        message.kwargs,
        options,
        message.message_id,
        message.message_timestamp,
    )


def _is_good(bare: Message, signature: object) -> bool:
    if not isinstance(signature, str):
        return False
    try:
        # Made of what was decoded, not of the bytes: of two fields with one name only one runs.
        _signer().unsign(f"{bare.encode().decode()}:{signature}")
    except BadSignature:
        return False
    return True


def _signer() -> Signer:
    # For each message: settings may change, and this costs less than looking whether they did.
    return Signer(salt=_SALT)
