"""What the tests of the test helpers share: actors that keep a list of their calls."""

from __future__ import annotations

from typing import Any

from django_actors.actor import Actor
from django_actors.brokers import get_broker
from django_actors.brokers.stub import StubBroker
from tests.engine import ActorsMixin


class HelpersCase(ActorsMixin):
    """
    A test with the stub that is there by itself.

    Attributes:
        calls: What the actor ``greet`` was called with, in order.
    """

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.greet = self.declare(self.make_greet())

    def make_greet(self) -> Any:
        def greet(name: Any, polite: Any = False) -> str:
            self.calls.append(name)
            return f"Hello, {name}"

        return greet

    def declare_failing(self, *errors: BaseException | None, **options: Any) -> Actor[..., Any]:
        """Declare an actor that raises these, run after run; then it succeeds."""
        waiting = list(errors)

        def fail(*args: Any) -> None:
            self.calls.append(args)
            error = waiting.pop(0) if waiting else None
            if error is not None:
                raise error

        return self.declare(fail, **options)

    @property
    def stub(self) -> StubBroker:
        broker = get_broker()
        assert isinstance(broker, StubBroker)
        return broker


def outcomes(results: list[Any]) -> list[str]:
    return [str(result.outcome) for result in results]
