"""
The broker: where messages that can run now travel.

``Broker`` is what every adapter shares: the order of things, the hooks, the
transaction, the waiting room. An adapter says how bytes are published and
consumed, and nothing else; ``tests/brokers/contract.py`` says what that means.
"""

from __future__ import annotations

import abc
import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from django_actors import clock, crashes, moves, outbox
from django_actors.conf import settings
from django_actors.delivery import WAITING_FATES, Delivery, Fate, Reason
from django_actors.encoding import encode_checked
from django_actors.errors import (
    MiddlewareError,
    QueueJoinTimeout,
    QueueNotFound,
)
from django_actors.failures import build_attempts
from django_actors.message import Envelope, Message
from django_actors.middleware.base import Hooks, Middleware, build_middleware, call_hooks
from django_actors.models import CrashRecord, Kind
from django_actors.options import clean_project_options
from django_actors.registry import RegisteredActor, nearest, registry
from django_actors.rows import build_delivery_row, build_row
from django_actors.waiting_room import WaitingRoom

from .concerns import Concern
from .consumer import Consumer

logger = logging.getLogger(__name__)

_JOIN_STEP_S = 0.05


class QueueSize(NamedTuple):
    """How many messages of a queue wait for a worker, and how many one has claimed."""

    ready: int
    claimed: int


class Broker(abc.ABC):
    """
    Where ready messages travel.

    Args:
        middleware: Instances in order; what the settings name where it is ``None``.
    """

    # Whether its deliveries have the origin of what was published. Without that, a message runs
    # twice if a process dies between publishing it and deleting its row.
    tells_origin = False

    def __init__(self, *, middleware: Iterable[Middleware] | None = None) -> None:
        self.middleware: list[Middleware] = (
            build_middleware() if middleware is None else list(middleware)
        )
        self.hooks = Hooks(self.middleware)
        self.waiting_room = WaitingRoom()
        self.queues: dict[str, Any] = {}
        self._declared_actors: dict[str, RegisteredActor] = {}
        self._declared_version = -1
        self._defaults: tuple[Any, Mapping[str, Any]] = (None, {})
        self._lock = threading.RLock()

    # ---- what an adapter says --------------------------------------------------

    @abc.abstractmethod
    def publish(self, envelopes: Sequence[Envelope]) -> None:
        """
        Make messages ready to run; they are durable when this returns.

        Raises:
            BrokerUnavailable: it is not known that the broker has them.
        """

    @abc.abstractmethod
    def consume(self, queue_names: Collection[str], *, owner: str) -> Consumer:
        """Return a new consumer of these queues, whose claims are *owner*'s."""

    @abc.abstractmethod
    def release(self, owner: str, *, done: Collection[str]) -> None:
        """Give back at once what a dead *owner* had claimed; erase receipts that are *done*."""

    @abc.abstractmethod
    def queue_size(self, queue_name: str) -> QueueSize:
        """Return how many messages of a queue are ready, and how many are claimed."""

    def count_ready(self, queue_name: str) -> int:
        """Return how many messages of a queue are ready; cheaper than ``queue_size()`` at best."""
        return self.queue_size(queue_name).ready

    def queue_sizes(self, queue_names: Collection[str]) -> dict[str, QueueSize]:
        """Return the sizes of several queues; in one question where the broker has one."""
        return {name: self.queue_size(name) for name in queue_names}

    def oldest_ready(self, queue_names: Collection[str]) -> dict[str, int]:
        """
        Return since when the oldest ready message of each queue waits, in milliseconds since 1970.

        A queue that is empty is missing; all are where the broker cannot tell.
        """
        return {}

    @abc.abstractmethod
    def flush(self, queue_name: str) -> None:
        """Drop every message of a queue that is not claimed."""

    @abc.abstractmethod
    def ping(self) -> None:
        """
        Ask the broker whether it answers.

        Raises:
            BrokerUnavailable: it does not; the error says where and why, without passwords.
        """

    def concerns(self) -> Iterable[Concern]:
        """Ask the server, and say what is unwise about it; one that is away is only mentioned."""
        return ()

    def maintain(self) -> None:  # noqa: B027 - a broker may have nothing to do
        """Bring back what dead workers left; called every few seconds by every worker."""

    def close(self) -> None:  # noqa: B027 - a broker may have nothing to close
        """Let go of this process's connections; they come back when they are needed."""

    def settlement(self) -> AbstractContextManager[object]:
        """Return what makes writes to the broker and the waiting room one, if that is possible."""
        return nullcontext()

    def find_crashes(self, message_ids: Sequence[str]) -> dict[str, CrashRecord]:
        """Return what is known of worker processes that died while they ran these messages."""
        return crashes.find(message_ids, self.waiting_room.alias)

    def receipt_text(self, delivery: Delivery) -> str | None:
        """Return a receipt as text, for the board, if ``release()`` could erase by it."""
        return None

    @property
    def joins_transaction(self) -> bool:
        """Whether ``publish()`` is rolled back with the caller's transaction."""
        return False

    # ---- actors and queues -----------------------------------------------------

    def get_actor(self, actor_name: str) -> RegisteredActor:
        """Return an actor by name; ``ActorNotFound`` if there is none."""
        return registry.get(actor_name)

    def actor_defaults(self) -> Mapping[str, Any]:
        """
        Return the setting ``ACTOR_OPTIONS``, each value in the form its middleware keeps it in.

        The values are cleaned once for each value of the setting, not for each message.
        """
        made_for = (settings.ACTOR_OPTIONS, self.hooks)
        if made_for != self._defaults[0]:
            self._defaults = (made_for, clean_project_options(made_for[0], self.middleware))
        return self._defaults[1]

    def get_declared_actors(self) -> set[str]:
        """Return the names of all actors."""
        return set(registry.actors())

    def get_declared_queues(self) -> set[str]:
        """Return the names of all queues that an actor or ``declare_queue()`` named."""
        self.declare_actors()
        return set(self.queues)

    def declare_actors(self) -> None:
        """Tell the middleware of actors and queues it was not told of yet."""
        if self._declared_version == registry.version:
            return
        with self._lock:
            version = registry.version
            for actor in registry.actors().values():
                self._declare_actor(actor)
            self._declared_version = version

    def _declare_actor(self, actor: RegisteredActor) -> None:
        if self._declared_actors.get(actor.actor_name) is actor:
            return
        call_hooks(self.hooks.before_declare_actor, self, actor)
        self._declared_actors[actor.actor_name] = actor
        self.declare_queue(actor.queue_name)
        call_hooks(self.hooks.after_declare_actor, self, actor)

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known; declaring it again does nothing."""
        if queue_name in self.queues:
            return
        with self._lock:
            call_hooks(self.hooks.before_declare_queue, self, queue_name)
            self.queues[queue_name] = self._open_queue(queue_name)
            call_hooks(self.hooks.after_declare_queue, self, queue_name)

    def _open_queue(self, queue_name: str) -> Any:
        """Return what ``queues[queue_name]`` is; an adapter may keep something there."""
        return queue_name

    def flush_all(self) -> None:
        """Drop every message of every declared queue that is not claimed."""
        for queue_name in self.get_declared_queues():
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """
        Wait until nothing of a queue is ready, claimed or waiting for its time.

        Args:
            timeout: Milliseconds; no limit where it is ``None``.

        Raises:
            QueueNotFound: nobody declared the queue.

            QueueJoinTimeout: the time was over first.
        """
        self.check_queue(queue_name)
        deadline = None if timeout is None else time.monotonic() + timeout / clock.MS_PER_S
        while self._is_busy(queue_name):
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(
                    f"Queue {queue_name!r} still holds messages after {timeout} ms."
                )
            time.sleep(_JOIN_STEP_S)

    def _is_busy(self, queue_name: str) -> bool:
        if any(self.queue_size(queue_name)) or self.waiting_room.has_waiting(queue_name):
            return True
        # Again: what was moved from there to here in between was seen at neither place.
        return any(self.queue_size(queue_name))

    def check_queue(self, queue_name: str) -> None:
        """Raise ``QueueNotFound``, which names the closest queue, if nobody declared it."""
        queues = self.get_declared_queues()
        if queue_name not in queues:
            raise QueueNotFound(
                f"Nobody declared a queue {queue_name!r}.{nearest(queue_name, queues)}"
            )

    # ---- middleware ------------------------------------------------------------

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """
        Add a middleware, at the end or next to another; running workers use it at once.

        Raises:
            ValueError: both places are given, or the broker has no such middleware.
        """
        if before is not None and after is not None:
            raise ValueError("A middleware is added before or after another one, not both.")
        reference = before or after
        with self._lock:
            position = len(self.middleware)
            if reference is not None:
                position = self._position_of(reference) + (after is not None)
            self.middleware.insert(position, middleware)
            # Replaced, never changed: a worker that reads it needs no lock.
            self.hooks = Hooks(self.middleware)

    def _position_of(self, reference: type[Middleware]) -> int:
        for position, middleware in enumerate(self.middleware):
            if type(middleware) is reference:
                return position
        raise ValueError(f"This broker has no middleware {reference.__name__}.")

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``before_`` hooks of *signal*."""
        call_hooks(getattr(self.hooks, f"before_{signal}"), self, *args, **kwargs)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the ``after_`` hooks of *signal*."""
        call_hooks(getattr(self.hooks, f"after_{signal}"), self, *args, **kwargs)

    # ---- sending ---------------------------------------------------------------

    def enqueue(self, message: Message, *, delay: int | None = None) -> Message:
        """
        Send one message; see ``enqueue_many()``.

        Args:
            delay: Milliseconds from now before which it does not run.
        """
        return self.enqueue_many([message], delay=delay)[0]

    def enqueue_many(
        self, messages: Iterable[Message], *, delay: int | None = None
    ) -> list[Message]:
        """
        Send messages in one batch: to the broker, or to the waiting room if their time has
        not come or a transaction is open.

        Returns:
            The messages as they were sent; all are durable, or part of the transaction.

        Raises:
            TypeError: an argument has no JSON form.

            MessageTooLarge: one is over ``MAX_MESSAGE_SIZE``; none was sent.

            BrokerUnavailable: the broker could not take them.
        """
        sent = [self._announce(message, delay) for message in messages]
        now = clock.now_ms()
        ready: list[tuple[Message, Envelope]] = []
        delayed: list[tuple[Message, Envelope]] = []
        for message in sent:
            target = delayed if _eta(message) > now else ready
            target.append((message, self._envelop(message)))
        if delayed:
            self._delay(delayed)
        if ready:
            self._transmit(ready)
        if self.hooks.after_enqueue:
            for message in sent:
                call_hooks(self.hooks.after_enqueue, self, message, delay)
        return sent

    def _announce(self, message: Message, delay: int | None) -> Message:
        if delay is not None:
            message = message.copy(options={"eta": clock.now_ms() + delay})
        if message.queue_name not in self.queues:
            self.declare_queue(message.queue_name)
        if self.hooks.before_enqueue:
            call_hooks(self.hooks.before_enqueue, self, message, delay)
        return message

    def _envelop(self, message: Message) -> Envelope:
        return Envelope(
            message.message_id, message.queue_name, _priority(message), encode_checked(message)
        )

    def _delay(self, batch: Sequence[tuple[Message, Envelope]]) -> None:
        for message, _ in batch:
            call_hooks(self.hooks.before_delay_message, self, message)
        rows = [
            build_row(
                message,
                envelope.body,
                kind=Kind.SCHEDULED,
                reason=Reason.DELAY,
                priority=envelope.priority,
                due_ms=_eta(message),
            )
            for message, envelope in batch
        ]
        self.waiting_room.put(rows)
        for message, _ in batch:
            call_hooks(self.hooks.after_delay_message, self, message)

    def _transmit(self, batch: Sequence[tuple[Message, Envelope]]) -> None:
        mode = settings.ON_TRANSACTION
        envelopes = [envelope for _, envelope in batch]
        # Where the broker's own row joins the transaction, nothing is as good and as safe.
        outside = self.waiting_room.joins_transaction and not self.joins_transaction
        if mode == "ignore" or not outside:
            self.publish(envelopes)
        elif mode == "on_commit":
            outbox.publish_after_commit(self, envelopes)
        else:
            outbox.hold(self, batch)

    # ---- receiving -------------------------------------------------------------

    def note_received(self, deliveries: Sequence[Delivery]) -> None:
        """Finish the moves that *deliveries* come from, before they run."""
        if self.tells_origin:
            moves.note_received(deliveries, self.waiting_room.alias)

    # ---- settling --------------------------------------------------------------

    def settle(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        """
        Carry out what became of *deliveries*: write the new place, then erase the old one.

        May be called again with the same deliveries if it raises.

        Raises:
            BrokerUnavailable, django.db.Error: something could not be written; what was
                not acknowledged will be delivered again.
        """
        back = [each for each in deliveries if each.fate is Fate.PUT_BACK]
        settled = [each for each in deliveries if each.fate is not Fate.PUT_BACK]
        self._emit_settling("before", settled)
        if settled:
            self._write_then_ack(consumer, settled)
        if back:
            consumer.put_back(back)
        try:
            self._emit_settling("after", settled)
        except MiddlewareError:
            # Nothing can be stopped any more; to settle again would send successors twice.
            logger.exception("A hook objected to what was settled already")

    def _write_then_ack(self, consumer: Consumer, settled: Sequence[Delivery]) -> None:
        successors = [message for each in settled for message in each.successors]
        rows = [build_delivery_row(each) for each in settled if each.fate in WAITING_FATES]
        attempts = build_attempts(settled, rows)
        suspects = [each.message_id for each in settled if each.alone]
        # Acknowledgements alone are one statement; they need no transaction around it.
        with self.settlement() if rows or successors or attempts else nullcontext():
            if successors:
                self.enqueue_many(successors)
            self.waiting_room.put(rows, attempts)
            if self.tells_origin:
                moves.note_settled(settled, self.waiting_room.alias)
            consumer.ack(settled)
        if rows:
            self.waiting_room.count_failures(rows)
        if suspects:
            crashes.forget(suspects, self.waiting_room.alias)

    def _emit_settling(self, when: str, settled: Sequence[Delivery]) -> None:
        nack = getattr(self.hooks, f"{when}_nack")
        ack = getattr(self.hooks, f"{when}_ack")
        if not nack and not ack:
            return
        for delivery in settled:
            call_hooks(nack if delivery.failed else ack, self, delivery)


def _eta(message: Message) -> int:
    eta = message.options.get("eta")
    return eta if isinstance(eta, int) else 0


def _priority(message: Message) -> int:
    priority = message.options.get("priority")
    if isinstance(priority, int):
        return priority
    actor = registry.find(message.actor_name)
    return actor.priority if actor else 0
