"""
The channel on which the consumers of a project hear of each other.

One exchange reaches them all: with news of a lane nobody had used before, and with questions.
Each also reads a queue that is always empty, so that RabbitMQ counts them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from .rabbitmq_link import Link
from .rabbitmq_topology import Topology

logger = logging.getLogger(__name__)

# How soon it is opened again that was lost.
REOPEN_S = 10.0

# Called with what was said, and with whom to answer.
Hearer = Callable[[Any, str], object]


class Control:
    """
    The channel of one consumer.

    Args:
        hearers: What to do, by the word that news begin with; other news are for newer workers.
    """

    def __init__(self, topology: Topology, hearers: Mapping[str, Hearer]) -> None:
        self._topology = topology
        self._hearers = hearers
        self._channel: Any = None
        self._open_at = 0.0
        self.is_listening = False

    @property
    def is_open(self) -> bool:
        """Whether nothing is known of its end."""
        return self._channel is not None

    def tend(self, link: Link, now: float) -> None:
        """Open the channel if there is none; not more often than every few seconds."""
        if self._channel is None and now >= self._open_at:
            self._open_at = now + REOPEN_S
            self._channel = link.open_channel(self._on_close, self._on_open)

    def say(self, word: str) -> None:
        """Reach all consumers, this one too; nobody, if the channel is not open."""
        if self._channel is not None and self._channel.is_open:
            body = json.dumps({word: True}).encode()
            self._channel.basic_publish(self._topology.control_name, "", body)

    def forget(self) -> None:
        """Forget the channel, because the connection is gone."""
        self._channel = None
        self._open_at = 0.0
        self.is_listening = False

    def _on_open(self, channel: Any) -> None:
        topology = self._topology

        def on_queue(frame: Any) -> None:
            name = frame.method.queue
            channel.queue_bind(name, topology.control_name, callback=_ignore)
            channel.basic_consume(
                name, self._on_news, auto_ack=True, callback=lambda frame: self._listen()
            )

        channel.exchange_declare(**topology.control_declaration(), callback=_ignore)
        channel.queue_declare(**topology.declaration(topology.roll_name), callback=_ignore)
        channel.basic_consume(topology.roll_name, _ignore, callback=_ignore)
        channel.queue_declare("", exclusive=True, callback=on_queue)

    def _listen(self) -> None:
        self.is_listening = True

    def _on_close(self, channel: Any, error: Exception) -> None:
        if channel is self._channel:
            self._channel = None
            self.is_listening = False

    def _on_news(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        try:
            for word, said in json.loads(body).items():
                if word in self._hearers:
                    self._hearers[word](said, properties.reply_to)
        except (ValueError, TypeError, AttributeError):
            logger.warning("Heard something on %r that is no news", channel)


def _ignore(*args: Any) -> None:
    """Be a callback."""
