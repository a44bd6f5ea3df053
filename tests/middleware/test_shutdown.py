"""Actors that want to know that their worker stops."""

from __future__ import annotations

from typing import Any

from django_actors.delivery import Fate
from django_actors.errors import Shutdown
from django_actors.middleware import ShutdownNotifications
from django_actors.models import Kind
from tests.support import StubCase, actors_settings


class NotificationTests(StubCase):
    def is_notified(self, *, message: Any = None, **options: Any) -> Any:
        declared = self.declare(lambda: None, actor_name="nothing", **options)
        declared.send_with_options(**(message or {}))
        (delivery,) = self.run_ready()
        return delivery.notify_shutdown

    def test_an_actor_is_interrupted_only_if_it_says_so(self):
        self.assertIs(self.is_notified(), False)
        self.assertIs(self.is_notified(notify_shutdown=True), True)
        self.assertIs(self.is_notified(notify_shutdown=False), False)

    def test_message_before_actor_before_project_before_middleware(self):
        self.use_middleware(ShutdownNotifications(notify_shutdown=True))

        self.assertIs(self.is_notified(), True)
        with actors_settings(ACTOR_OPTIONS={"notify_shutdown": False}):
            self.assertIs(self.is_notified(), False)
            self.assertIs(self.is_notified(notify_shutdown=True), True)
            self.assertIs(
                self.is_notified(notify_shutdown=True, message={"notify_shutdown": False}), False
            )

    def test_only_true_and_false_are_answers(self):
        for value in (1, 0, None, "yes"):
            with self.subTest(value=value), self.assertRaisesRegex(TypeError, "True or False"):
                self.declare(lambda: None, actor_name="nothing", notify_shutdown=value)


class ShutdownTests(StubCase):
    """What the exception means where it is raised."""

    def run_actor(self, function: Any, **options: Any) -> Any:
        self.message = self.declare(function, **options).send()
        (delivery,) = self.run_ready()
        return delivery

    def test_the_message_is_put_back_as_it_was(self):
        def interrupted():
            raise Shutdown

        delivery = self.run_actor(interrupted, max_retries=0, on_failure="interrupted")

        self.assertEqual(delivery.fate, Fate.PUT_BACK)
        self.assertEqual(self.sent(), [self.message])
        self.assertEqual(self.rows(*Kind), [])

    def test_it_is_no_failure_in_the_log(self):
        def interrupted(key):
            raise Shutdown

        self.declare(interrupted).send("x")
        self.run_ready()

        self.assertIn("interrupted('x') was interrupted by the shutdown", self.log.text())
        self.assertNotIn("Failed", self.log.text())

    def test_except_exception_does_not_eat_it(self):
        def stubborn():
            try:
                raise Shutdown
            except Exception:
                return "eaten"

        self.assertEqual(self.run_actor(stubborn).fate, Fate.PUT_BACK)

    def test_an_actor_that_catches_it_and_returns_is_done(self):
        def graceful():
            try:
                raise Shutdown
            except Shutdown:
                return "saved"

        self.assertEqual(self.run_actor(graceful).fate, Fate.DONE)
        self.assertEqual(self.sent(), [])

    def test_another_error_while_it_cleans_up_is_a_failure(self):
        def clumsy():
            try:
                raise Shutdown
            finally:
                raise ValueError("dropped")

        self.assertEqual(self.run_actor(clumsy).fate, Fate.RETRY)
