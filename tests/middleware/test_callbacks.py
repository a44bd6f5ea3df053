"""Sending to another actor when one has succeeded or failed."""

from __future__ import annotations

from typing import Any

from django_actors import Message
from django_actors.delivery import Fate
from django_actors.errors import Shutdown, TimeLimitExceeded
from django_actors.middleware import Middleware
from tests.support import Failing, StubCase, actors_settings


class CallbackTests(StubCase):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Any] = []
        self.listen = self.declare(self.listener, actor_name="listen")

    def listener(self, message: Any, value: Any) -> None:
        self.heard.append((message, value))

    def run_actor(self, function: Any, *args: Any, message: Any = None, **options: Any) -> Message:
        declared = self.replace(function, "work", **options)
        sent: Message = declared.send_with_options(args=args, **(message or {}))
        self.ended = self.run_ready()
        return sent

    def test_on_success_gets_the_message_as_a_dict_and_the_result(self):
        sent = self.run_actor(lambda x: [x, {"y": 1}], 5, on_success="listen")

        ((message, result),) = self.heard
        self.assertEqual(result, [5, {"y": 1}])
        self.assertEqual(Message(**{**message, "args": tuple(message["args"])}), sent)

    def test_on_failure_gets_the_message_and_what_was_raised(self):
        sent = self.run_actor(Failing(ValueError("no")).as_function(), on_failure=self.listen)

        ((message, error),) = self.heard
        self.assertEqual(message["message_id"], sent.message_id)
        self.assertEqual(error, {"type": "ValueError", "message": "no"})

    def test_each_hears_only_of_its_own_end(self):
        self.run_actor(lambda: 1, on_failure="listen")
        self.run_actor(Failing(ValueError("no")).as_function(), on_success="listen")

        self.assertEqual(self.heard, [])

    def test_on_failure_is_sent_on_every_failed_run(self):
        failing = Failing(ValueError("1"), ValueError("2"), ValueError("3"))
        self.declare(
            failing.as_function(),
            actor_name="work",
            on_failure="listen",
            max_retries=2,
            min_backoff=0,
        ).send()

        self.run_all()

        self.assertEqual([error["message"] for _, error in self.heard], ["1", "2", "3"])

    def test_on_failure_hears_of_a_time_limit_and_not_of_a_shutdown(self):
        self.run_actor(Failing(TimeLimitExceeded()).as_function(), on_failure="listen")
        self.assertEqual([e for _, e in self.heard], [{"type": "TimeLimitExceeded", "message": ""}])

        self.run_actor(Failing(Shutdown()).as_function(), on_failure="listen")
        self.assertEqual(len(self.heard), 1)

    def test_the_message_decides_before_the_actor_and_the_project(self):
        heard: list[Any] = []
        self.declare(
            lambda message, value: heard.append(value), actor_name="other", on_success=None
        )

        with actors_settings(ACTOR_OPTIONS={"on_success": "other"}):
            self.run_actor(lambda: 1)
        with actors_settings(ACTOR_OPTIONS={"on_success": "nobody"}):
            self.listen.options["on_success"] = None
            self.run_actor(lambda: 2, on_success="listen")
            self.run_actor(lambda: 3, on_success="listen", message={"on_success": "other"})
            self.run_actor(lambda: 4, on_success="listen", message={"on_success": None})

        self.assertEqual((heard, [value for _, value in self.heard]), ([1, 3], [2]))

    def test_the_callback_is_sent_before_the_message_is_acknowledged(self):
        order: list[str] = []

        class Watch(Middleware):
            def before_enqueue(self, broker, message, delay):
                order.append(f"send {message.actor_name}")

            def after_ack(self, broker, message):
                order.append(f"ack {message.actor_name}")

        self.broker.add_middleware(Watch())
        self.run_actor(lambda: 1, on_success="listen")

        self.assertEqual(order, ["send work", "send listen", "ack work", "ack listen"])

    def test_a_failed_run_leaves_its_retry_and_its_callback(self):
        self.run_actor(Failing(ValueError("no")).as_function(), on_failure="listen")

        self.assertEqual([each.fate for each in self.ended], [Fate.RETRY, Fate.DONE])


class TroubleTests(StubCase):
    """A callback that cannot be sent is logged, and the message ends as it would without."""

    def run_actor(self, function: Any, *args: Any, **options: Any) -> Any:
        self.declare(function, actor_name="work", **options).send(*args)
        (delivery,) = self.run_ready()
        return delivery

    def test_a_callback_to_nobody(self):
        delivery = self.run_actor(lambda: 1, on_success="nobody")

        self.assertEqual(delivery.fate, Fate.DONE)
        self.assertIn("There is no actor 'nobody'", self.log.text())

    def test_a_callback_that_takes_other_arguments(self):
        self.declare(lambda: None, actor_name="deaf")

        delivery = self.run_actor(lambda: 1, on_success="deaf")

        self.assertEqual(delivery.fate, Fate.DONE)
        self.assertIn("was sent wrongly", self.log.text())

    def test_a_result_without_a_json_form(self):
        self.declare(lambda message, result: None, actor_name="listen")

        delivery = self.run_actor(lambda: object(), on_success="listen")

        self.assertEqual(delivery.fate, Fate.DONE)
        self.assertIn("Argument 'result' of listen cannot be sent", self.log.text())
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    def test_a_result_that_is_too_large(self):
        self.declare(lambda message, result: None, actor_name="listen")

        with actors_settings(MAX_MESSAGE_SIZE=1_000):
            delivery = self.run_actor(lambda: "x" * 1_000, on_success="listen")

        self.assertEqual(delivery.fate, Fate.DONE)
        self.assertIn("MAX_MESSAGE_SIZE", self.log.text())
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    def test_an_error_whose_text_cannot_be_made(self):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        heard: list[Any] = []
        self.declare(lambda message, error: heard.append(error), actor_name="listen")
        self.declare(Failing(Mute()).as_function(), actor_name="work", on_failure="listen").send()

        retried, called = self.run_ready()

        self.assertEqual((retried.fate, called.fate), (Fate.RETRY, Fate.DONE))
        self.assertEqual(heard[0]["type"], "Mute")
