"""
One model of where messages are, for every broker.

A machine does to a broker whatever can happen to it, in any order: messages are sent, claimed,
run, put back, retried, buried, requeued; workers die while they run, before they acknowledge, or
with their host. After every step each message is where the model says it is: in one place.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_actors import clock, crashes
from django_actors.brokers.base import Broker
from django_actors.brokers.consumer import Consumer
from django_actors.conf import settings as actors_settings
from django_actors.delivery import Delivery, Fate
from django_actors.dispatcher import Dispatcher
from django_actors.errors import BrokerUnavailable, Retry
from django_actors.executor import Executor
from django_actors.message import Message, Origin
from django_actors.models import Kind, WaitingMessage
from tests.engine import ActorsMixin, silence, wait_until

from .sizes import IS_LONG, SIZE

if TYPE_CHECKING:
    Base = ActorsMixin
else:
    # No test case by itself: it is one where it is mixed in.
    Base = object

SOON_MS = 600_000

SLOTS = st.sampled_from([0, 1])
OUTCOMES = st.sampled_from(["done", "retry", "dead"])


def later_ms() -> int:
    """Return a time after everything that the machine delays, but not after everything."""
    return clock.now_ms() + 2 * SOON_MS


class Expected(Exception):
    """An error after which the actor is not tried again."""


class World(Base):
    """
    What a test says of its broker.

    Attributes:
        settles_at_once: Whether a row and an acknowledgement are one transaction.

        counts_crashes: Whether deaths are counted.

        knows_at_once: Whether a message that was published a moment ago is never overtaken.
    """

    settles_at_once = False
    counts_crashes = True
    knows_at_once = True

    def make_broker(self) -> Broker:
        raise NotImplementedError

    def kill(self, consumer: Any) -> None:
        raise NotImplementedError

    def expire(self, owner: str) -> None:
        raise NotImplementedError

    def rows(self, broker: Any) -> list[WaitingMessage]:
        return list(WaitingMessage.objects.all())

    def clean(self, broker: Any, queue_name: str) -> None:
        broker.flush(queue_name)

    def clear_rows(self, broker: Any) -> None:
        WaitingMessage.objects.all().delete()

    def check_machine(self) -> None:
        """Let the machine run against the broker."""
        kind: Any = type("Machine", (Machine,), {"world": self})
        run_state_machine_as_test(
            kind,
            settings=settings(
                max_examples=SIZE.examples,
                stateful_step_count=SIZE.steps,
                deadline=None,
                # The same steps every time, where a failure must be somebody's own.
                derandomize=not IS_LONG,
                database=None,
                # To make a failure smaller takes minutes.
                phases=list(Phase) if IS_LONG else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )


class Machine(RuleBasedStateMachine):
    """A broker, and what it should hold."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.broker = self.world.use(self.world.make_broker())
        self.sibling = self.world.make_broker()
        self.queue = f"q_{uuid.uuid4().hex}"
        self.broker.declare_queue(self.queue)
        self.actor = self.world.declare(
            self.behave,
            actor_name=f"behave_{uuid.uuid4().hex}",
            queue_name=self.queue,
            throws=Expected,
            max_retries=None,
        )
        self.outcome = "done"
        self.consumers: list[Any] = [None, None]
        self.owners = ["", ""]
        # The model: where each message is, by its id.
        self.ready: dict[str, int] = {}
        self.held: dict[str, tuple[int, Delivery]] = {}
        self.waiting: dict[str, Kind] = {}
        # Of these there is a row, and what the acknowledgement should have erased.
        self.unacknowledged: set[str] = set()
        self.failures: dict[str, int] = {}
        self.deaths: dict[str, int] = {}

    def behave(self) -> None:
        if self.outcome == "retry":
            raise Retry(delay=SOON_MS)
        if self.outcome == "dead":
            raise Expected

    # ---- what senders and workers do -------------------------------------------

    @rule(priority=st.integers(-1, 1), delayed=st.booleans())
    def enqueue(self, priority: int, delayed: bool) -> None:
        # In the order of their ids, so that the same choice is the same message.
        key = f"{self.queue}.{len(self.failures):04}"
        message = self.actor.message_with_options(priority=priority).copy(message_id=key)
        sent = self.broker.enqueue(message, delay=SOON_MS if delayed else None)
        self.failures[sent.message_id] = self.deaths[sent.message_id] = 0
        if delayed:
            self.waiting[sent.message_id] = Kind.SCHEDULED
        else:
            self.ready[sent.message_id] = priority

    def consumer(self, slot: int) -> Consumer:
        if self.consumers[slot] is None:
            self.owners[slot] = uuid.uuid4().hex
            self.consumers[slot] = self.broker.consume([self.queue], owner=self.owners[slot])
        consumer: Consumer = self.consumers[slot]
        return consumer

    @precondition(lambda self: self.ready)
    @rule(slot=SLOTS)
    def claim(self, slot: int) -> None:
        consumer = self.consumer(slot)

        def fetch() -> list[Delivery]:
            self.tend_consumers()
            return consumer.fetch(1, timeout=0.1)

        [delivery] = wait_until(fetch, "a delivery")
        message = Message.decode(delivery.body)
        key = message.message_id
        assert key in self.ready, "it was ready"
        if self.world.knows_at_once:
            assert self.ready[key] == min(self.ready.values()), "nothing was more urgent"
        if key not in self.unacknowledged:
            assert message.options.get("retries", 0) == self.failures[key], "attempts are kept"
        del self.ready[key]
        self.held[key] = (slot, delivery)

    def choose(self, data: Any) -> tuple[str, Any, Delivery]:
        key = data.draw(st.sampled_from(sorted(self.held)))
        slot, delivery = self.held[key]
        return key, self.consumers[slot], delivery

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=OUTCOMES)
    def run_one(self, data: Any, outcome: str) -> None:
        key, consumer, delivery = self.choose(data)
        self.execute(delivery, outcome)
        self.broker.settle(consumer, [delivery])
        del self.held[key]
        self.note_outcome(key, delivery)
        self.unacknowledged.discard(key)

    def execute(self, delivery: Delivery, outcome: str) -> None:
        self.outcome = outcome
        is_late = delivery.origin is Origin.DOUBTFUL_ROW
        with silence():
            Executor(self.broker).run(delivery)
        key = delivery.message_id
        expected = {"done": Fate.DONE, "retry": Fate.RETRY, "dead": Fate.DEAD}[outcome]
        if key in self.unacknowledged or is_late:
            expected = Fate.SKIPPED
        elif self.deaths[key] >= actors_settings.CRASH_LIMIT:
            expected = Fate.DEAD
        assert delivery.fate is expected, f"{delivery.fate} instead of {expected}"

    def note_outcome(self, key: str, delivery: Delivery) -> None:
        if delivery.fate is Fate.SKIPPED:
            return
        self.deaths[key] = 0
        if delivery.fate is not Fate.DONE:
            self.waiting[key] = Kind.DEAD if delivery.fate is Fate.DEAD else Kind.SCHEDULED
            self.failures[key] += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def put_back(self, data: Any) -> None:
        key, consumer, delivery = self.choose(data)
        consumer.put_back([delivery])
        self.give_back(key)

    def give_back(self, key: str) -> None:
        _, delivery = self.held.pop(key)
        self.ready[key] = delivery.priority

    # ---- how workers die -------------------------------------------------------

    @precondition(lambda self: any(self.consumers))
    @rule(slot=SLOTS, host_is_lost=st.booleans())
    def crash(self, slot: int, host_is_lost: bool) -> None:
        if self.consumers[slot] is None:
            return
        self.world.kill(self.consumers[slot])
        if host_is_lost:
            self.world.expire(self.owners[slot])
            with silence():
                self.sibling.maintain()
        else:
            self.broker.release(self.owners[slot], done=())
        self.consumers[slot] = None
        for key in [key for key, (holder, _) in self.held.items() if holder == slot]:
            self.give_back(key)

    @precondition(lambda self: self.held and self.world.counts_crashes)
    @rule(data=st.data())
    def crash_while_it_runs(self, data: Any) -> None:
        key, _, _ = self.choose(data)
        slot, _ = self.held[key]
        alias = self.broker.waiting_room.alias
        crashes.count([key], overdue=(), detail="was killed", alias=alias)
        if key not in self.unacknowledged:
            self.deaths[key] += 1
        self.crash(slot, host_is_lost=False)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=OUTCOMES)
    def crash_before_the_acknowledgement(self, data: Any, outcome: str) -> None:
        key, consumer, delivery = self.choose(data)
        slot, _ = self.held[key]
        self.execute(delivery, outcome)
        cut = mock.patch.object(consumer, "ack", side_effect=BrokerUnavailable("Cut."))
        try:
            with cut:
                self.broker.settle(consumer, [delivery])
        except BrokerUnavailable:
            pass
        # Suspects are forgotten after the acknowledgement, so this one is still known.
        deaths = self.deaths[key]
        if not self.world.settles_at_once:
            self.note_outcome(key, delivery)
            if delivery.fate in (Fate.RETRY, Fate.DEAD):
                self.unacknowledged.add(key)
        self.deaths[key] = deaths
        self.crash(slot, host_is_lost=False)

    @rule()
    def sweep(self) -> None:
        self.sibling.maintain()

    # ---- what the dispatcher and operators do ----------------------------------

    def movable(self, kind: Kind) -> list[str]:
        return [
            key
            for key, where in self.waiting.items()
            if where == kind and key not in self.unacknowledged
        ]

    @precondition(lambda self: self.movable(Kind.SCHEDULED) and not self.unacknowledged)
    @rule()
    def dispatch(self) -> None:
        for row in self.world.rows(self.broker):
            if row.kind == Kind.SCHEDULED:
                self.ready[str(row.message_id)] = row.priority
                del self.waiting[str(row.message_id)]
        Dispatcher(self.broker).run_once(now=later_ms())

    @precondition(
        lambda self: (
            self.broker.tells_origin and self.movable(Kind.SCHEDULED) and not self.unacknowledged
        )
    )
    @rule(slot=SLOTS, outcome=OUTCOMES)
    def die_while_moving(self, slot: int, outcome: str) -> None:
        """Publish what waits, die before its rows are deleted: of two copies one runs."""
        moving = self.movable(Kind.SCHEDULED)
        with mock.patch.object(self.broker.waiting_room, "forget", side_effect=Expected):
            dead = Dispatcher(self.broker, owner="dead")
            try:
                dead.run_once(now=later_ms())
            except Expected:
                dead.let_go()
        Dispatcher(self.sibling).run_once(now=later_ms())
        for key in moving:
            del self.waiting[key]
        copies = self.claim_all_of(moving, slot)
        for delivery in copies:
            self.execute(delivery, outcome)
        self.broker.settle(self.consumers[slot], copies)
        ran = [each for each in copies if each.fate is not Fate.SKIPPED]
        assert sorted(each.message_id for each in ran) == sorted(moving), "each ran once"
        for delivery in ran:
            self.note_outcome(delivery.message_id, delivery)

    def claim_all_of(self, keys: list[str], slot: int) -> list[Delivery]:
        """Claim two copies of each of some messages; what else comes with them is put back."""
        consumer, count = self.consumer(slot), len(self.ready) + 2 * len(keys)
        found: list[Delivery] = []

        def has_all() -> bool:
            self.tend_consumers()
            found.extend(consumer.fetch(count - len(found), timeout=0.1))
            return len(found) >= count

        wait_until(has_all, f"{count} deliveries")
        self.broker.note_received(found)
        copies = [each for each in found if Message.decode(each.body).message_id in keys]
        consumer.put_back([each for each in found if each not in copies])
        return copies

    @precondition(lambda self: self.movable(Kind.DEAD))
    @rule(data=st.data())
    def requeue(self, data: Any) -> None:
        key = data.draw(st.sampled_from(self.movable(Kind.DEAD)))
        rows = [row for row in self.world.rows(self.broker) if row.message_id == key]
        self.broker.waiting_room.requeue(rows, delay=SOON_MS)
        self.waiting[key] = Kind.SCHEDULED
        self.failures[key] = 0

    # ---- what must hold --------------------------------------------------------

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        expected = (len(self.ready), len(self.held))
        self.settle_down(lambda: self.size() == expected, expected)
        rows = {str(row.message_id): row for row in self.world.rows(self.broker)}
        assert {key: row.kind for key, row in rows.items()} == self.waiting
        for key, row in rows.items():
            assert row.attempts >= self.failures[key], "attempts never fall"

    def size(self) -> tuple[int, int]:
        self.tend_consumers()
        ready, claimed = self.broker.queue_size(self.queue)
        return ready, claimed

    def tend_consumers(self) -> None:
        """Do what a worker does at least once a second: answer for what the server has pushed."""
        for consumer in filter(None, self.consumers):
            consumer.fetch(0, timeout=0)

    def settle_down(self, condition: Callable[[], bool], expected: Any) -> None:
        try:
            wait_until(condition)
        except AssertionError:
            found = self.broker.queue_size(self.queue)
            raise AssertionError(f"{found} ready and claimed instead of {expected}") from None

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            for consumer in filter(None, self.consumers):
                consumer.close()
            self.world.clean(self.broker, self.queue)
            self.world.clear_rows(self.broker)
            self.broker.close()
            self.sibling.close()

    def drain(self) -> None:
        """Take out whatever is in the broker: exactly what should be there."""
        for slot, consumer in enumerate(self.consumers):
            if consumer is not None:
                consumer.close()
                self.consumers[slot] = None
        expected = sorted([*self.ready, *self.held])
        last = self.consumer(0)
        found: list[str] = []

        def is_empty() -> bool:
            deliveries = last.fetch(100, timeout=0.02)
            found.extend(Message.decode(each.body).message_id for each in deliveries)
            last.ack(deliveries)
            return len(found) >= len(expected) and not deliveries

        wait_until(is_empty, f"{expected} instead of {found}")
        assert sorted(found) == expected, f"{sorted(found)} instead of {expected}"
