"""
The middleware that comes with the package, and the base for your own.
"""

from django_actors.errors import (
    Interrupt,
    MiddlewareError,
    Retry,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
)

from .age_limit import AgeLimit
from .base import Middleware
from .callbacks import Callbacks
from .current_message import CurrentMessage
from .db_connections import DbConnections
from .retries import Retries
from .shutdown import ShutdownNotifications
from .time_limit import TimeLimit

__all__ = [
    "AgeLimit",
    "Callbacks",
    "CurrentMessage",
    "DbConnections",
    "Interrupt",
    "Middleware",
    "MiddlewareError",
    "Retries",
    "Retry",
    "Shutdown",
    "ShutdownNotifications",
    "SkipMessage",
    "TimeLimit",
    "TimeLimitExceeded",
]
