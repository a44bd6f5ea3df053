"""The options of the whole project: ``ACTOR_OPTIONS``."""

from __future__ import annotations

from datetime import timedelta
from unittest.mock import patch

from django_actors.middleware import AgeLimit, Middleware

from .support import StubCase, actors_settings
from .test_actor import Colors


class ProjectOptionsTests(StubCase):
    def option(self, name: str) -> object:
        """Return what a run of an actor that says nothing sees of an option."""
        self.replace(lambda: None, "work").send()
        (delivery,) = self.run_ready()
        return delivery.option(name, "the middleware's own")

    def test_a_timedelta_is_as_good_as_milliseconds(self):
        minute = timedelta(minutes=1)

        with actors_settings(ACTOR_OPTIONS={"max_age": minute, "time_limit": minute}):
            self.assertEqual((self.option("max_age"), self.option("time_limit")), (60_000, 60_000))

    def test_a_middleware_of_the_project_cleans_its_option_there_too(self):
        self.use_middleware(Colors())

        with actors_settings(ACTOR_OPTIONS={"color": "red"}):
            self.assertEqual(self.option("color"), "RED")

    def test_other_settings_have_effect_at_once(self):
        for value in (1_000, 2_000):
            with actors_settings(ACTOR_OPTIONS={"max_age": value}):
                self.assertEqual(self.option("max_age"), value)
        with actors_settings():
            self.assertEqual(self.option("max_age"), "the middleware's own")

    def test_a_middleware_that_is_added_later_cleans_from_then_on(self):
        with actors_settings(ACTOR_OPTIONS={"color": "red"}):
            self.assertEqual(self.option("color"), "red")

            self.broker.add_middleware(Colors())

            self.assertEqual(self.option("color"), "RED")

    def test_a_value_is_cleaned_once_and_not_for_each_message(self):
        self.use_middleware(AgeLimit())
        minute = timedelta(minutes=1)

        with (
            actors_settings(ACTOR_OPTIONS={"max_age": minute}),
            patch.object(AgeLimit, "clean_option", return_value=60_000) as clean,
        ):
            for _ in range(5):
                self.assertEqual(self.option("max_age"), 60_000)

        clean.assert_called_once_with("max_age", minute)

    def test_a_wrong_value_is_logged_once_and_the_middleware_decides(self):
        with actors_settings(ACTOR_OPTIONS={"max_age": "an hour", "max_retries": 3}):
            for _ in range(3):
                self.assertEqual(self.option("max_age"), "the middleware's own")
                self.assertEqual(self.option("max_retries"), 3)

        (line,) = [line for line in self.log.lines() if "ACTOR_OPTIONS" in line]
        self.assertIn("max_age must be milliseconds", line)

    def test_an_error_of_a_middleware_has_the_kind_a_caller_can_catch(self):
        class Picky(Middleware):
            @property
            def actor_options(self):
                return ("text",)

            def clean_option(self, name, value):
                # An error whose class takes other arguments than a message.
                return value.encode("ascii")

        self.use_middleware(Picky())

        with self.assertRaisesRegex(ValueError, "<lambda>: 'ascii' codec"):
            self.declare(lambda: None, actor_name="work", text="é")
