"""
The helpers as methods: of the pytest fixture ``actors``, and of a test case.
"""

from __future__ import annotations

from typing import Any

from django_actors.message import Message

from .assertions import AnyActor, capture_messages, check_not_sent, check_sent, sent
from .realism import crash_before_ack, fail_next_send, redeliver
from .running import arun_actors, run_actors
from .virtual_clock import actor_clock


class Helpers:
    """What the fixture and the test case have in common."""

    _written = "assert_sent"

    arun = staticmethod(arun_actors)
    clock = staticmethod(actor_clock)
    sent = staticmethod(sent)
    capture = staticmethod(capture_messages)
    redeliver = staticmethod(redeliver)
    fail_next_send = staticmethod(fail_next_send)
    crash_before_ack = staticmethod(crash_before_ack)

    def assert_sent(self, actor: AnyActor, *args: Any, **kwargs: Any) -> Message:
        """Fail unless *actor* was sent to with exactly these arguments; without any, at all."""
        return check_sent(actor, args, kwargs, self._written)

    def assert_not_sent(self, actor: AnyActor, *args: Any, **kwargs: Any) -> None:
        """Fail if *actor* was sent to with exactly these arguments; without any, if at all."""
        check_not_sent(actor, args, kwargs, self._written)


class Actors(Helpers):
    """The pytest fixture ``actors``."""

    _written = "actors.assert_sent"

    run = staticmethod(run_actors)


class ActorsTestMixin(Helpers):
    """
    The helpers as methods of a test case: ``class CheckoutTests(ActorsTestMixin, TestCase)``.

    The functions of ``django_actors.test`` do the same without a base class.
    """

    _written = "self.assert_sent"

    def run(self, result: Any = None, **options: Any) -> Any:
        """
        Run what is pending; see ``run_actors()``.

        A test case has a method of this name already, which runs the test: unittest calls it,
        and always with a *result*.
        """
        if result is not None:
            return super().run(result)  # type: ignore[misc]
        return run_actors(**options)
