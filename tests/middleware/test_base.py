"""Hooks: which are called, in which order, and what becomes of their errors."""

from __future__ import annotations

from typing import Any

from django.test import SimpleTestCase

from django_actors import middleware as package
from django_actors.brokers.stub import StubBroker
from django_actors.errors import MiddlewareError
from django_actors.middleware import (
    AgeLimit,
    Callbacks,
    Middleware,
    Retries,
    SkipMessage,
    TimeLimit,
)
from django_actors.middleware.base import HOOK_NAMES, Hooks, build_middleware, call_hooks
from tests.engine import make_message
from tests.support import StubCase, actors_settings, keep_log


class Recorder(Middleware):
    """Notes which of its hooks are called, in a list that recorders share."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name = name
        self.calls = calls


def record(hook: str) -> Any:
    def note(self: Any, broker: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.append((self.name, hook))

    return note


for _hook in HOOK_NAMES:
    setattr(Recorder, _hook, record(_hook))


def greet(name): ...


class HookNamesTests(SimpleTestCase):
    def test_the_hooks_are_those_of_the_reference(self):
        both = [
            *("enqueue", "process_message", "ack", "nack", "delay_message"),
            *("declare_actor", "declare_queue", "worker_boot", "worker_shutdown"),
            *("consumer_thread_boot", "consumer_thread_shutdown"),
            *("worker_thread_boot", "worker_thread_shutdown"),
        ]

        expected = {f"{when}_{name}" for name in both for when in ("before", "after")}

        self.assertEqual(set(HOOK_NAMES), expected | {"after_skip_message", "after_process_boot"})

    def test_every_hook_of_the_base_does_nothing(self):
        for name in HOOK_NAMES:
            hook = getattr(Middleware(), name)
            count = hook.__code__.co_argcount - 1
            with self.subTest(name):
                self.assertIsNone(hook(*[None] * count))

    def test_the_package_names_every_middleware_of_the_settings(self):
        for each in build_middleware():
            with self.subTest(each):
                self.assertIn(type(each).__name__, package.__all__)


class OrderTests(StubCase):
    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.use_middleware(Recorder("a", self.calls), Recorder("b", self.calls))

    def hooks_called(self) -> list[str]:
        """Return the calls so far as ``name:hook``, and forget them."""
        called = [f"{name}:{hook}" for name, hook in self.calls]
        self.calls.clear()
        return called

    def pair(self, name: str) -> list[str]:
        return [f"{each}:before_{name}" for each in "ab"] + [
            f"{each}:after_{name}" for each in "ba"
        ]

    def test_before_hooks_run_in_list_order_and_after_hooks_in_reverse(self):
        self.broker.declare_queue("mail")

        self.assertEqual(self.hooks_called(), self.pair("declare_queue"))

    def test_an_actor_is_declared_around_its_queue(self):
        self.broker.declare_actors()
        self.hooks_called()

        self.declare(greet, queue_name="greetings")
        self.broker.declare_actors()

        actor, queue = self.pair("declare_actor"), self.pair("declare_queue")
        self.assertEqual(self.hooks_called(), [*actor[:2], *queue, *actor[2:]])
        self.broker.declare_actors()
        self.assertEqual(self.hooks_called(), [])

    def test_a_message_that_is_sent_run_and_acknowledged(self):
        greeted = self.declare(greet)
        self.broker.declare_actors()
        self.hooks_called()

        greeted.send("Ada")
        self.assertEqual(self.hooks_called(), self.pair("enqueue"))

        self.run_ready()
        self.assertEqual(self.hooks_called(), self.pair("process_message") + self.pair("ack"))

    def test_a_message_that_is_delayed(self):
        greeted = self.declare(greet)
        self.broker.declare_actors()
        self.hooks_called()

        greeted.send_with_options(args=("Ada",), delay=1_000)

        enqueue, delay = self.pair("enqueue"), self.pair("delay_message")
        self.assertEqual(self.hooks_called(), [*enqueue[:2], *delay, *enqueue[2:]])

    def test_a_message_that_becomes_a_dead_letter_is_not_acknowledged(self):
        self.declare(lambda: 1 / 0, actor_name="fail").send()
        self.hooks_called()

        self.run_ready()

        called = [each for each in self.hooks_called() if "declare" not in each]
        self.assertEqual(called, self.pair("process_message") + self.pair("nack"))

    def test_a_skipped_message(self):
        class Skip(Middleware):
            def before_process_message(self, broker, message):
                raise SkipMessage

        self.broker.add_middleware(Skip())
        self.declare(greet).send("Ada")
        self.calls.clear()

        self.run_ready()

        called = [each for each in self.hooks_called() if "declare" not in each]
        skipped = [
            *self.pair("process_message")[:2],
            "b:after_skip_message",
            "a:after_skip_message",
        ]
        self.assertEqual(called, skipped + self.pair("ack"))


class AddMiddlewareTests(SimpleTestCase):
    def setUp(self) -> None:
        self.broker = StubBroker(middleware=[AgeLimit(), Retries()])

    def order(self) -> list[str]:
        return [type(each).__name__ for each in self.broker.middleware]

    def test_it_is_added_at_the_end_or_next_to_another(self):
        self.broker.add_middleware(TimeLimit())
        self.assertEqual(self.order(), ["AgeLimit", "Retries", "TimeLimit"])

        self.broker.add_middleware(Callbacks(), before=AgeLimit)
        self.assertEqual(self.order(), ["Callbacks", "AgeLimit", "Retries", "TimeLimit"])

        self.broker.add_middleware(Recorder("a", []), after=AgeLimit)
        self.assertEqual(self.order()[1:3], ["AgeLimit", "Recorder"])

    def test_both_places_are_an_error(self):
        with self.assertRaisesRegex(ValueError, "before or after another one, not both"):
            self.broker.add_middleware(TimeLimit(), before=AgeLimit, after=Retries)

        self.assertEqual(self.order(), ["AgeLimit", "Retries"])

    def test_an_absent_reference_is_an_error_that_names_it(self):
        for place in ("before", "after"):
            with self.subTest(place), self.assertRaisesRegex(ValueError, "no middleware Callbacks"):
                self.broker.add_middleware(TimeLimit(), **{place: Callbacks})

        self.assertEqual(self.order(), ["AgeLimit", "Retries"])

    def test_it_is_effective_at_once(self):
        calls: list[Any] = []

        self.broker.add_middleware(Recorder("a", calls))
        self.broker.declare_queue("mail")

        self.assertEqual(calls, [("a", "before_declare_queue"), ("a", "after_declare_queue")])

    def test_a_broker_without_a_list_has_what_the_settings_name(self):
        with actors_settings(MIDDLEWARE=["django_actors.middleware.AgeLimit"]):
            self.assertEqual([type(each) for each in StubBroker().middleware], [AgeLimit])
        with actors_settings():
            self.assertEqual(len(StubBroker().middleware), 7)


class ErrorTests(StubCase):
    """A ``MiddlewareError`` is heard; what else a hook raises is logged."""

    def fail_in(self, hook: str, error: BaseException) -> None:
        def fail(self, *args, **kwargs):
            raise error

        fail.__qualname__ = f"Fails.{hook}"
        self.use_middleware(type("Fails", (Middleware,), {hook: fail})(), Retries())

    def test_a_failing_hook_is_logged_with_its_name_and_the_engine_goes_on(self):
        for hook in (
            "before_enqueue",
            "after_enqueue",
            "before_declare_queue",
            "before_process_message",
            "after_process_message",
            "before_ack",
            "after_ack",
        ):
            with self.subTest(hook):
                self.fail_in(hook, ValueError("broken hook"))
                self.log.records.clear()

                self.declare(greet).send("Ada")
                (delivery,) = self.run_ready()

                self.assertEqual(delivery.fate.value, "done")
                self.assertRegex(
                    self.log.text(), rf"(?s)ERROR\] Hook Fails.{hook} failed.*broken hook"
                )

    def test_those_after_a_failing_hook_are_called_all_the_same(self):
        calls: list[Any] = []
        self.fail_in("before_enqueue", ValueError("broken hook"))
        self.broker.add_middleware(Recorder("b", calls))

        self.declare(greet).send("Ada")

        self.assertIn(("b", "before_enqueue"), calls)

    def test_a_middleware_error_can_forbid_to_send(self):
        self.fail_in("before_enqueue", MiddlewareError("not today"))

        with self.assertRaisesRegex(MiddlewareError, "not today"):
            self.declare(greet).send("Ada")

        self.assertEqual(self.sent(), [])

    def test_a_middleware_error_can_forbid_an_actor(self):
        self.fail_in("before_declare_actor", MiddlewareError("not this one"))

        self.declare(greet)

        with self.assertRaisesRegex(MiddlewareError, "not this one"):
            self.broker.declare_actors()

    def test_a_middleware_error_before_a_run_is_a_failed_run_that_is_retried(self):
        self.fail_in("before_process_message", MiddlewareError("too busy"))
        message = self.declare(greet).send("Ada")

        (delivery,) = self.run_ready()

        self.assertEqual(delivery.fate.value, "retry")
        self.assertEqual(self.rows()[0].message_id, message.message_id)
        self.assertIn("too busy", self.rows()[0].error)

    def test_a_middleware_error_after_a_run_makes_a_dead_letter(self):
        self.fail_in("after_process_message", MiddlewareError("bad result"))
        self.declare(greet).send("Ada")

        (delivery,) = self.run_ready()

        self.assertEqual((delivery.fate.value, delivery.reason), ("dead", "rejected"))
        self.assertIn("bad result", str(delivery.exception))

    def test_call_hooks_stops_at_the_first_error_that_is_heard(self):
        log, calls = keep_log(self), []

        def fail(error):
            raise error

        with self.assertRaisesRegex(MiddlewareError, "second"):
            call_hooks(
                [
                    lambda: fail(ValueError("first")),
                    lambda: fail(MiddlewareError("second")),
                    lambda: calls.append("third"),
                ]
            )

        self.assertIn("first", log.text())
        self.assertEqual(calls, [])


class BoundHooksTests(SimpleTestCase):
    def test_only_overridden_hooks_are_called(self):
        calls: list[Any] = []

        hooks = Hooks([Middleware(), Recorder("a", calls), AgeLimit()])

        self.assertEqual(len(hooks.before_enqueue), 1)
        self.assertEqual(len(hooks.before_process_message), 2)
        self.assertEqual(Hooks([Middleware()]).before_enqueue, ())

    def test_a_hook_of_a_base_class_counts(self):
        class Derived(AgeLimit): ...

        self.assertEqual(len(Hooks([Derived()]).before_process_message), 1)

    def test_a_hook_that_does_not_exist_is_an_error_that_names_it(self):
        with self.assertRaisesRegex(AttributeError, "no hook 'before_lunch'"):
            _ = Hooks([]).before_lunch

    def test_emitting_a_signal_calls_its_hooks_with_the_broker(self):
        calls: list[Any] = []
        broker = StubBroker(middleware=[Recorder("a", calls)])

        broker.emit_before("worker_boot", None)
        broker.emit_after("process_boot")

        self.assertEqual(calls, [("a", "before_worker_boot"), ("a", "after_process_boot")])


class BuildTests(SimpleTestCase):
    def test_an_entry_is_a_path_or_a_pair_with_arguments(self):
        plain, given = build_middleware(
            [
                "django_actors.middleware.AgeLimit",
                ("django_actors.middleware.AgeLimit", {"max_age": 5}),
            ]
        )

        self.assertEqual((plain.max_age, given.max_age), (None, 5))  # type: ignore[attr-defined]

    def test_what_cannot_be_built_is_an_error(self):
        for entry, kind in (
            ("django_actors.middleware.NoSuch", ImportError),
            ("no_such_module.AgeLimit", ImportError),
            (("django_actors.middleware.AgeLimit", {"max_agee": 5}), TypeError),
            (("django_actors.middleware.AgeLimit", {"max_age": -5}), ValueError),
            ("collections.OrderedDict", TypeError),
        ):
            with self.subTest(entry=entry), self.assertRaises(kind):
                build_middleware([entry])


class ProcessedMessageTests(StubCase):
    """What a hook receives as message is as good as the message."""

    def test_it_passes_the_attributes_on_and_equals_the_message(self):
        seen: list[Any] = []

        class Look(Middleware):
            def before_process_message(self, broker, message):
                seen.append((message.actor_name, message.args, message.failed, str(message)))
                seen.append(message == sent)

        self.use_middleware(Look())
        sent = self.broker.enqueue(
            make_message(self.declare(greet).actor_name, "Ada", queue="default")
        )

        self.run_ready()

        self.assertEqual(seen, [("greet", ("Ada",), False, "greet('Ada')"), True])

    def test_the_result_and_the_exception_reach_the_hook(self):
        seen: list[Any] = []

        class Look(Middleware):
            def after_process_message(self, broker, message, *, result=None, exception=None):
                seen.append((result, type(exception)))

        self.use_middleware(Look())
        self.declare(lambda: "value", actor_name="succeed").send()
        self.declare(lambda: 1 / 0, actor_name="fail").send()

        self.run_ready()

        self.assertEqual(seen, [("value", type(None)), (None, ZeroDivisionError)])
