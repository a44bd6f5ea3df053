"""
Test code that sends messages: with plain ``django.test.TestCase``, or with pytest.

In a test the broker is a stub: ``send()`` records, and nothing runs until the test says so.
"""

from __future__ import annotations

from django_actors import isolation

from .assertions import assert_not_sent, assert_sent, capture_messages, sent
from .forgotten import refuse_forgotten
from .helpers import Actors, ActorsTestMixin
from .real_worker import RealWorker, real_worker
from .realism import crash_before_ack, fail_next_send, redeliver
from .runner import ActorsRunnerMixin, ActorsTestRunner
from .running import EndlessChain, Outcome, Result, arun_actors, run_actors
from .virtual_clock import VirtualClock, actor_clock

__all__ = [
    "Actors",
    "ActorsRunnerMixin",
    "ActorsTestMixin",
    "ActorsTestRunner",
    "EndlessChain",
    "Outcome",
    "RealWorker",
    "Result",
    "VirtualClock",
    "actor_clock",
    "arun_actors",
    "assert_not_sent",
    "assert_sent",
    "capture_messages",
    "crash_before_ack",
    "fail_next_send",
    "real_worker",
    "redeliver",
    "run_actors",
    "sent",
]

# A module of tests that uses this is imported before its first test begins.
isolation.install()
isolation.at_end.append(refuse_forgotten)
