"""
The operator's desk in Django's admin: the overview, dead letters, scheduled messages, actors.

Imported by ``admin.autodiscover()`` only, so a project without the admin pays
nothing for it. Messages are rows of the waiting room; the overview alone asks the broker.
"""

from .actors import ActorSummaryAdmin
from .dead_letters import DeadLetterAdmin
from .error_groups import ErrorGroupAdmin
from .overview import OverviewAdmin
from .scheduled import ScheduledMessageAdmin

__all__ = [
    "ActorSummaryAdmin",
    "DeadLetterAdmin",
    "ErrorGroupAdmin",
    "OverviewAdmin",
    "ScheduledMessageAdmin",
]
