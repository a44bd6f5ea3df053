"""
The stub broker of the running test, or an error that says why there is none.
"""

from __future__ import annotations

from django_actors.brokers import get_broker
from django_actors.brokers.stub import StubBroker


def stub_broker() -> StubBroker:
    """
    Return the stub broker that actors send to in this test.

    Raises:
        RuntimeError: they send to another broker.
    """
    broker = get_broker()
    if isinstance(broker, StubBroker):
        return broker
    raise RuntimeError(
        f"The helpers of django_actors.test need the stub broker, but this process sends to a "
        f"{type(broker).__name__}. In a test the stub is there by itself: either set_broker() "
        "has put another one in its place, or no test runner has set Django up for tests "
        "(django.test.utils.setup_test_environment())."
    )
