"""
Questions and small jobs of threads that neither publish nor consume: sizes, purges, sweeps.

One connection that the calling thread drives, one caller at a time. Nobody serves it in
between; if the server has given it up meanwhile, the next caller opens another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from django_actors.errors import BrokerUnavailable

from .rabbitmq_link import Link, describe
from .rabbitmq_options import Target
from .rabbitmq_topology import explain_refusal

NOT_FOUND = 404

ANSWER_S = 5.0

# RabbitMQ's name for "whoever asked"; it must be read on the channel that asks.
DIRECT_REPLY = "amq.rabbitmq.reply-to"


class Found(NamedTuple):
    """A message that was fetched by hand."""

    tag: int
    properties: Any
    body: bytes


class Desk:
    """The connection for questions."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._link: Link | None = None

    @contextmanager
    def visit(self) -> Iterator[Visit]:
        """
        Have the connection for oneself.

        Raises:
            BrokerUnavailable: the server does not answer, or refuses.
        """
        with self._lock:
            visit = Visit(self._living_link())
            try:
                yield visit
                visit.close()
            except BrokerUnavailable:
                self._drop()
                raise
            except AMQPError as error:
                self._drop()
                if isinstance(error, ChannelClosedByBroker):
                    raise explain_refusal(error) from error
                raise BrokerUnavailable(
                    f"RabbitMQ at {self._target.place} does not answer: {describe(error)}"
                ) from error

    def _living_link(self) -> Link:
        if self._link is not None:
            try:
                self._link.step(0)
            except BrokerUnavailable:
                self._drop()
        if self._link is None:
            self._link = Link(self._target)
        return self._link

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def close(self) -> None:
        """Close the connection; it comes back when it is needed."""
        with self._lock:
            link, self._link = self._link, None
            if link is not None:
                link.close()


class Visit:
    """What one caller does at the desk."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Any = None

    @property
    def channel(self) -> Any:
        """An open channel; another one after a refusal has closed it."""
        if self._channel is None or not self._channel.is_open:
            channel = self._channel = self._link.open_channel(_ignore)
            if not self._link.run(lambda: channel.is_open or channel.is_closed, ANSWER_S):
                raise BrokerUnavailable("RabbitMQ opens no channel.")
        return self._channel

    def call(self, method: str, *, missing: Any = None, **arguments: Any) -> Any:
        """Make a request and return the answer; *missing* if there is no such queue."""
        try:
            return self._link.call(self.channel, method, ANSWER_S, **arguments)
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return missing
            raise

    def wait(self, until: Callable[[], bool], timeout: float) -> bool:
        """Read until a state is reached."""
        return self._link.run(until, timeout)

    def get(self, queue: str) -> Found | None:
        """Return the next message of a queue, unacknowledged; ``None`` if it is empty."""
        found: list[Found | None] = []
        channel = self.channel

        def take(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            found.append(Found(method.delivery_tag, properties, body))

        channel.add_callback(lambda frame: found.append(None), [pika.spec.Basic.GetEmpty])
        channel.basic_get(queue, take)
        if not self.wait(lambda: bool(found) or not channel.is_open, ANSWER_S) or not found:
            raise BrokerUnavailable(f"RabbitMQ gave no message of {queue!r} and no reason.")
        return found[0]

    def ask_all(self, exchange: str, body: bytes) -> None:
        """Send bytes to all who listen on an exchange; they answer to who reads direct replies."""
        properties = pika.BasicProperties(reply_to=DIRECT_REPLY)
        self.channel.basic_publish(exchange, "", body, properties)

    def flush(self) -> None:
        """See that what was written has left this process."""
        self._link.flush()

    def close(self) -> None:
        """Close the channel; what was not acknowledged goes back."""
        channel = self._channel
        if channel is not None and channel.is_open:
            channel.close()
            self._link.run(lambda: bool(channel.is_closed), ANSWER_S)


def _ignore(*args: Any) -> None:
    """Be a callback."""
