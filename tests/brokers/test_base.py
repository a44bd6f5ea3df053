"""What all brokers share: the order of things, the hooks, and who is asked for what."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.test import SimpleTestCase

from django_actors import Middleware, clock
from django_actors.brokers.base import Broker
from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Delivery, Fate
from django_actors.errors import (
    ActorNotFound,
    BrokerUnavailable,
    MessageTooLarge,
    MiddlewareError,
    QueueNotFound,
    UnencodableArgument,
)
from django_actors.middleware import AgeLimit, Retries
from django_actors.middleware.base import HOOK_NAMES
from tests.engine import ActorsMixin, deliver, make_message, silence


class Recorder(Middleware):
    """Notes every hook that is called, with a name and what it was about."""

    def __init__(self, name: str = "", calls: list[str] | None = None) -> None:
        self.name = name
        self.calls: list[str] = [] if calls is None else calls


def _record(hook: str) -> Any:
    def record(self: Recorder, broker: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.append(f"{self.name}{hook}")

    return record


for _hook in HOOK_NAMES:
    setattr(Recorder, _hook, _record(_hook))


class BaseCase(ActorsMixin, SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.recorder = Recorder()
        self.broker = self.use(StubBroker(middleware=[self.recorder]))
        self.calls = self.recorder.calls

    def published(self) -> list[bytes]:
        consumer = self.broker.consume(self.broker.queues, owner="test")
        try:
            return [each.body for each in consumer.fetch(100, timeout=0)]
        finally:
            consumer.close()

    def declare_nothing_more(self) -> None:
        """Have everything declared that there is, so that no hook tells of it later."""
        self.broker.declare_actors()
        self.broker.declare_queue("default")
        self.calls.clear()


class SendingTests(BaseCase):
    def test_a_message_is_announced_published_and_told(self):
        self.declare_nothing_more()
        message = make_message()

        sent = self.broker.enqueue(message)

        self.assertEqual(sent, message)
        self.assertEqual(self.published(), [message.encode()])
        self.assertEqual(self.calls, ["before_enqueue", "after_enqueue"])

    def test_a_delayed_message_is_put_into_the_waiting_room(self):
        self.declare_nothing_more()

        sent = self.broker.enqueue(make_message(), delay=60_000)

        self.assertEqual(self.published(), [])
        self.assertEqual(
            self.calls,
            ["before_enqueue", "before_delay_message", "after_delay_message", "after_enqueue"],
        )
        [row] = self.broker.room.rows.values()
        self.assertEqual((row.message, row.due_ms), (sent, sent.options["eta"]))
        self.assertAlmostEqual(sent.options["eta"], clock.now_ms() + 60_000, delta=10_000)

    def test_a_time_that_is_over_is_no_delay(self):
        for eta in (0, clock.now_ms() - 1, None, "soon"):
            with self.subTest(eta=eta):
                self.broker.enqueue(make_message(eta=eta))

        self.assertEqual(len(self.published()), 4)

    def test_a_batch_keeps_its_order_and_is_parted_by_time(self):
        messages = [make_message("a"), make_message("b", eta=2**50), make_message("c")]

        self.assertEqual(self.broker.enqueue_many(messages), messages)

        self.assertEqual(self.published(), [messages[0].encode(), messages[2].encode()])
        self.assertEqual(len(self.broker.room.rows), 1)

    def test_of_a_batch_with_one_that_is_refused_nothing_is_sent(self):
        for wrong, error in (
            (make_message("greet", "x" * 1_048_576), MessageTooLarge),
            (make_message("greet", object()), UnencodableArgument),
            (make_message("greet", "half \ud83d"), UnencodableArgument),
        ):
            with self.subTest(error=error):
                batch = [make_message(), make_message(eta=2**50), wrong]

                self.assertRaises(error, self.broker.enqueue_many, batch)

                self.assertEqual((self.published(), self.broker.room.rows), ([], {}))

    def test_the_limit_of_the_size_is_a_setting(self):
        with self.settings(DJANGO_ACTORS={"MAX_MESSAGE_SIZE": 100}):
            self.use(self.broker)

            self.assertRaises(MessageTooLarge, self.broker.enqueue, make_message("x" * 100))

    def test_nothing_is_told_to_have_been_sent_that_was_not(self):
        self.declare_nothing_more()
        with (
            mock.patch.object(self.broker, "publish", side_effect=BrokerUnavailable("Away.")),
            self.assertRaises(BrokerUnavailable),
        ):
            self.broker.enqueue(make_message())

        self.assertEqual(self.calls, ["before_enqueue"])

    def test_a_hook_may_refuse_a_message(self):
        class Refusing(Middleware):
            def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
                raise MiddlewareError("Not today.")

        self.broker.add_middleware(Refusing())

        self.assertRaises(MiddlewareError, self.broker.enqueue, make_message())

        self.assertEqual(self.published(), [])

    def test_a_hook_that_fails_does_not_stop_a_message(self):
        class Failing(Middleware):
            def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
                raise ValueError

            after_enqueue = before_enqueue

        self.broker.add_middleware(Failing())

        with silence():
            self.broker.enqueue(make_message())

        self.assertEqual(len(self.published()), 1)

    def test_a_message_runs_with_its_own_priority_or_that_of_its_actor(self):
        self.declare(lambda: None, actor_name="low", priority=9)
        self.broker.enqueue(make_message("low"))
        self.broker.enqueue(make_message("nobody"))
        self.broker.enqueue(make_message("low", priority=-4))
        self.broker.enqueue(make_message("low", priority="high"))
        consumer = self.broker.consume(["default"], owner="test")
        self.addCleanup(consumer.close)

        priorities = [each.priority for each in consumer.fetch(9, timeout=0)]

        self.assertEqual(priorities, [-4, 0, 9, 9])


class DeclaringTests(BaseCase):
    def test_each_actor_and_each_queue_is_told_once(self):
        self.declare_nothing_more()
        self.declare(lambda: None, actor_name="late", queue_name="late")

        self.assertIn("late", self.broker.get_declared_queues())
        self.assertIn("late", self.broker.get_declared_actors())
        self.broker.declare_actors()
        self.broker.declare_queue("late")

        self.assertEqual(
            self.calls,
            [
                "before_declare_actor",
                "before_declare_queue",
                "after_declare_queue",
                "after_declare_actor",
            ],
        )

    def test_sending_to_a_queue_declares_it(self):
        self.broker.enqueue(make_message(queue="new"))

        self.assertIn("new", self.broker.get_declared_queues())

    def test_an_actor_is_found_by_its_name(self):
        greet = self.declare(lambda: None, actor_name="greet")

        self.assertIs(self.broker.get_actor("greet"), greet)
        self.assertRaises(ActorNotFound, self.broker.get_actor, "nobody")

    def test_a_queue_that_nobody_declared_is_an_error_that_names_the_nearest(self):
        self.broker.declare_queue("parcels")

        with self.assertRaisesMessage(QueueNotFound, "Did you mean 'parcels'?"):
            self.broker.check_queue("parcel")


class First(Recorder):
    pass


class Second(Recorder):
    pass


class MiddlewareTests(BaseCase):
    def setUp(self) -> None:
        super().setUp()
        self.order: list[str] = []
        self.first, self.second = First("1 ", self.order), Second("2 ", self.order)
        self.broker = StubBroker(middleware=[self.first, self.second])

    def names(self) -> list[str]:
        return [getattr(each, "name", "").strip() for each in self.broker.middleware]

    def test_hooks_before_run_in_order_and_hooks_after_in_reverse(self):
        self.broker.emit_before("worker_boot", None)
        self.broker.emit_after("worker_boot", None)

        self.assertEqual(
            self.order,
            ["1 before_worker_boot", "2 before_worker_boot"]
            + ["2 after_worker_boot", "1 after_worker_boot"],
        )

    def test_middleware_is_added_at_the_end_or_next_to_another(self):
        self.broker.add_middleware(Recorder("end"))
        self.broker.add_middleware(Recorder("before"), before=Second)
        self.broker.add_middleware(Recorder("after"), after=First)
        self.broker.add_middleware(Recorder("start"), before=First)

        self.assertEqual(self.names(), ["start", "1", "after", "before", "2", "end"])

    def test_it_is_used_at_once(self):
        added = Recorder()

        self.broker.add_middleware(added)
        self.broker.emit_before("worker_boot", None)

        self.assertEqual(added.calls, ["before_worker_boot"])

    def test_both_places_or_one_that_is_not_there_are_errors(self):
        with self.assertRaisesMessage(ValueError, "not both"):
            self.broker.add_middleware(Recorder(), before=First, after=Second)
        with self.assertRaisesMessage(ValueError, "no middleware AgeLimit"):
            self.broker.add_middleware(Recorder(), before=AgeLimit)

        self.assertEqual(self.names(), ["1", "2"])

    def test_without_any_the_settings_decide(self):
        self.assertTrue(any(isinstance(each, Retries) for each in StubBroker().middleware))
        self.assertEqual(StubBroker(middleware=[]).middleware, [])


class SettlingTests(BaseCase):
    """The new place is written before the old one is erased."""

    def setUp(self) -> None:
        super().setUp()
        self.declare_nothing_more()
        self.consumer = mock.Mock()
        self.enterContext(
            mock.patch.object(
                self.broker.waiting_room,
                "put",
                side_effect=lambda rows, attempts: self.calls.append(f"put {len(rows)}"),
            )
        )
        self.enterContext(
            mock.patch.object(
                self.broker,
                "publish",
                side_effect=lambda envelopes: self.calls.append(f"publish {len(envelopes)}"),
            )
        )
        self.consumer.ack.side_effect = lambda each: self.calls.append(f"ack {len(each)}")
        self.consumer.put_back.side_effect = lambda each: self.calls.append(f"back {len(each)}")

    def settle(self, *deliveries: Delivery) -> list[str]:
        self.broker.settle(self.consumer, deliveries)
        return [call for call in self.calls if "enqueue" not in call]

    def retried(self) -> Delivery:
        delivery = deliver(make_message())
        delivery.retry(60_000)
        return delivery

    def dead(self) -> Delivery:
        delivery = deliver(make_message())
        delivery.fail()
        return delivery

    def done(self) -> Delivery:
        return deliver(make_message(), fate=Fate.DONE)

    def test_a_retry_is_written_before_the_message_is_acknowledged(self):
        self.assertEqual(self.settle(self.retried()), ["before_ack", "put 1", "ack 1", "after_ack"])

    def test_a_dead_letter_is_written_before_and_told_as_not_acknowledged(self):
        self.assertEqual(self.settle(self.dead()), ["before_nack", "put 1", "ack 1", "after_nack"])

    def test_successors_are_sent_before(self):
        done = self.done()
        done.send_after(make_message())
        done.send_after(make_message())

        self.assertEqual(
            self.settle(done), ["before_ack", "publish 2", "put 0", "ack 1", "after_ack"]
        )

    def test_a_batch_is_written_and_acknowledged_at_once(self):
        calls = self.settle(self.done(), self.retried(), self.dead(), self.done())

        self.assertEqual([call for call in calls if "_" not in call], ["put 2", "ack 4"])

    def test_what_is_put_back_is_not_acknowledged(self):
        back = deliver(make_message(), fate=Fate.PUT_BACK)

        self.assertEqual(self.settle(back), ["back 1"])

    def test_if_the_new_place_cannot_be_written_the_old_one_stays(self):
        for place in ("put", "publish"):
            with self.subTest(place=place):
                delivery = self.retried()
                delivery.send_after(make_message())
                target: Any = self.broker.waiting_room if place == "put" else self.broker

                with (
                    mock.patch.object(target, place, side_effect=BrokerUnavailable("Away.")),
                    self.assertRaises(BrokerUnavailable),
                ):
                    self.settle(delivery)

                self.consumer.ack.assert_not_called()

    def test_a_hook_may_object_before_but_not_after(self):
        class Objecting(Middleware):
            def after_ack(self, broker: Any, message: Any) -> None:
                raise MiddlewareError("Too late.")

            def before_nack(self, broker: Any, message: Any) -> None:
                raise MiddlewareError("Not buried here.")

        self.broker.add_middleware(Objecting())
        with self.assertLogs("django_actors.brokers.base", "ERROR"):
            self.settle(self.done())
        self.consumer.ack.assert_called_once()

        self.assertRaises(MiddlewareError, self.settle, self.dead())
        self.consumer.ack.assert_called_once()

    def test_settling_nothing_does_nothing(self):
        self.assertEqual(self.settle(), [])


class AbstractTests(SimpleTestCase):
    def test_an_adapter_has_to_say_how_to_publish_and_consume(self):
        missing = Broker.__abstractmethods__

        self.assertEqual(missing, {"publish", "consume", "release", "queue_size", "flush", "ping"})
