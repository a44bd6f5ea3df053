"""
The operator's desk in Django's admin: dead letters and scheduled messages.

Imported by ``admin.autodiscover()`` only, so a project without the admin pays
nothing for it. Everything acts on rows of the waiting room; no broker is asked.
"""

from .dead_letters import DeadLetterAdmin
from .error_groups import ErrorGroupAdmin
from .scheduled import ScheduledMessageAdmin

__all__ = ["DeadLetterAdmin", "ErrorGroupAdmin", "ScheduledMessageAdmin"]
