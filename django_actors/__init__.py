"""
Background actors for Django, with an engine of their own.

Public names only; importing this loads no model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, not at the first use: this name must end up as the decorator, not as its module.
from .actor import Actor, actor
from .brokers import get_broker, set_broker
from .generic_actor import GenericActor
from .message import Message
from .middleware.base import Middleware

if TYPE_CHECKING:
    from .brokers.base import Broker
    from .brokers.consumer import Consumer
    from .worker import Worker

__version__ = "0.1.0"

# The models behind these need Django's apps.
_LATER = {"Broker": "brokers.base", "Consumer": "brokers.consumer", "Worker": "worker"}

__all__ = [
    "Actor",
    "Broker",
    "Consumer",
    "GenericActor",
    "Message",
    "Middleware",
    "Worker",
    "actor",
    "get_broker",
    "set_broker",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value
