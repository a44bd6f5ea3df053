"""The settings: their defaults, their forms, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import Mock, patch

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from django_actors.conf import DEFAULT_MIDDLEWARE, SETTINGS, settings

from .support import actors_settings

DAY_MS = 86_400_000

# As the reference has them; durations in milliseconds.
DEFAULTS = {
    "BROKER": "database://default",
    "DATABASE": "default",
    "MIDDLEWARE": DEFAULT_MIDDLEWARE,
    "ACTOR_OPTIONS": {},
    "AUTODISCOVER": ["tasks"],
    "ON_TRANSACTION": "outbox",
    "DEAD_LETTER_TTL": 7 * DAY_MS,
    "ATTEMPT_TTL": 14 * DAY_MS,
    "STATISTICS_TTL": 7 * DAY_MS,
    "NAMESPACE": "django_actors",
    "CRASH_LIMIT": 3,
    "TIME_LIMIT_GRACE": 5_000,
    "UNKNOWN_ACTOR_GRACE": 15 * 60_000,
    "MAX_MESSAGE_SIZE": 1_048_576,
    "SIGNING": "off",
    "TEST_FORGOTTEN": "ignore",
}

WRONG: dict[str, list[Any]] = {
    "BROKER": [
        None,
        "",
        5,
        [],
        {},
        {"OPTIONS": {}},
        {"BACKEND": ""},
        {"BACKEND": 5},
        {"URL": b"stub://"},
        {"URL": "stub://", "OPTIONS": []},
        {"URL": "stub://", "OPTION": {}},
    ],
    "DATABASE": [None, "", 5],
    "MIDDLEWARE": [None, "a.b.C", {}, [5], [("a.b.C",)], [("a.b.C", {}, 1)], [("a.b.C", 5)]],
    "ACTOR_OPTIONS": [None, [], "max_age", {5: 1}],
    "AUTODISCOVER": [None, "tasks", [5], {"tasks"}],
    "ON_TRANSACTION": [None, "commit", True, []],
    "DEAD_LETTER_TTL": [None, "7", -1, timedelta(-1), True, float("nan")],
    "ATTEMPT_TTL": [None, "14", -1, timedelta(-1)],
    "STATISTICS_TTL": [None, "7", -1, timedelta(-1), True],
    "NAMESPACE": [None, "", "a b", "1a", "a" * 65, "a\n", "{a}", "é"],
    "CRASH_LIMIT": [None, 0, -1, 1.5, True, "3"],
    "TIME_LIMIT_GRACE": [None, "5", -1, timedelta(-1)],
    "UNKNOWN_ACTOR_GRACE": [None, "15", -1],
    "MAX_MESSAGE_SIZE": [None, 0, -1, 1.5, True, "1"],
    "SIGNING": [None, "on", True, False],
    "TEST_FORGOTTEN": [None, "warn", True],
}


class DefaultsTests(SimpleTestCase):
    def test_every_setting_has_the_default_of_the_reference(self):
        with actors_settings():
            found = {name: getattr(settings, name) for name in SETTINGS}

        self.assertEqual(found, DEFAULTS)

    def test_a_project_may_leave_the_setting_out(self):
        with override_settings():
            del django_settings.DJANGO_ACTORS

            self.assertEqual(settings.BROKER, "database://default")
            self.assertEqual(settings.CRASH_LIMIT, 3)

    def test_the_list_of_middleware_has_the_order_of_the_reference(self):
        self.assertEqual(
            [path.rpartition(".")[2] for path in DEFAULT_MIDDLEWARE],
            [
                "AgeLimit",
                "TimeLimit",
                "ShutdownNotifications",
                "Callbacks",
                "Retries",
                "DbConnections",
                "CurrentMessage",
            ],
        )


class ReadingTests(SimpleTestCase):
    def test_a_setting_is_read_at_every_access(self):
        with actors_settings(CRASH_LIMIT=5):
            self.assertEqual(settings.CRASH_LIMIT, 5)
            with actors_settings(CRASH_LIMIT=7):
                self.assertEqual(settings.CRASH_LIMIT, 7)
            self.assertEqual(settings.CRASH_LIMIT, 5)

    def test_a_dict_that_takes_the_place_of_another_without_a_signal_is_read(self):
        with override_settings():
            for limit in (5, 7):
                django_settings.DJANGO_ACTORS = {"CRASH_LIMIT": limit}
                self.assertEqual(settings.CRASH_LIMIT, limit)
            del django_settings.DJANGO_ACTORS
            self.assertEqual(settings.CRASH_LIMIT, 3)

    def test_a_project_without_the_setting_is_asked_for_it_once_and_not_for_each_message(self):
        with override_settings():
            del django_settings.DJANGO_ACTORS
            self.assertEqual(settings.CRASH_LIMIT, 3)

            with patch.object(type(django_settings), "__getattr__") as asked:
                self.assertEqual([settings.CRASH_LIMIT, settings.NAMESPACE], [3, "django_actors"])

        asked.assert_not_called()

    def test_a_setting_that_was_not_there_is_read_as_soon_as_it_is(self):
        with override_settings():
            del django_settings.DJANGO_ACTORS
            self.assertEqual(settings.CRASH_LIMIT, 3)
            with actors_settings(CRASH_LIMIT=5):
                self.assertEqual(settings.CRASH_LIMIT, 5)
            self.assertEqual(settings.CRASH_LIMIT, 3)
            django_settings.DJANGO_ACTORS = {"CRASH_LIMIT": 7}
            self.assertEqual(settings.CRASH_LIMIT, 7)

    def test_a_setting_is_checked_once_for_a_dict(self):
        checked = Mock(side_effect=lambda name, value: value)
        counted = SETTINGS["CRASH_LIMIT"]._replace(clean=checked)

        with patch.dict(SETTINGS, CRASH_LIMIT=counted), actors_settings(CRASH_LIMIT=5):
            self.assertEqual([settings.CRASH_LIMIT, settings.CRASH_LIMIT], [5, 5])

        checked.assert_called_once_with("CRASH_LIMIT", 5)

    def test_a_duration_is_milliseconds_whatever_was_written(self):
        for name in ("DEAD_LETTER_TTL", "TIME_LIMIT_GRACE", "UNKNOWN_ACTOR_GRACE"):
            for value in (90_000, timedelta(seconds=90)):
                with self.subTest(name, value=value), actors_settings(**{name: value}):
                    self.assertEqual(getattr(settings, name), 90_000)

    def test_a_grace_may_be_nothing(self):
        with actors_settings(TIME_LIMIT_GRACE=0):
            self.assertEqual(settings.TIME_LIMIT_GRACE, 0)

    def test_a_broker_is_a_url_or_a_dict(self):
        for value in (
            "stub://",
            {"URL": "stub://"},
            {"BACKEND": "a.b.C"},
            {"BACKEND": "a.b.C", "URL": "x://", "OPTIONS": {"a": 1}},
        ):
            with self.subTest(value=value), actors_settings(BROKER=value):
                self.assertEqual(settings.BROKER, value)

    def test_middleware_is_paths_and_pairs_of_a_path_and_arguments(self):
        value = ["a.b.C", ("a.b.D", {"x": 1}), ["a.b.E", {}]]

        with actors_settings(MIDDLEWARE=value):
            self.assertEqual(settings.MIDDLEWARE, value)

    def test_lists_and_tuples_are_the_same(self):
        with actors_settings(AUTODISCOVER=("tasks", "actors"), MIDDLEWARE=("a.b.C",)):
            self.assertEqual(settings.AUTODISCOVER, ["tasks", "actors"])
            self.assertEqual(settings.MIDDLEWARE, ["a.b.C"])

    def test_who_changes_what_is_read_does_not_change_the_setting(self):
        with actors_settings(ACTOR_OPTIONS={"max_age": 1}, AUTODISCOVER=["tasks"]):
            settings.ACTOR_OPTIONS["max_age"] = 2
            settings.AUTODISCOVER.append("other")

            self.assertEqual(settings.ACTOR_OPTIONS, {"max_age": 1})
            self.assertEqual(settings.AUTODISCOVER, ["tasks"])

    def test_the_three_ways_to_send_in_a_transaction(self):
        for value in ("outbox", "on_commit", "ignore"):
            with self.subTest(value), actors_settings(ON_TRANSACTION=value):
                self.assertEqual(settings.ON_TRANSACTION, value)


class WrongValueTests(SimpleTestCase):
    def test_every_setting_has_cases_here(self):
        self.assertEqual(set(WRONG), set(SETTINGS))

    def test_a_wrong_value_is_refused_and_the_error_names_the_setting(self):
        for name, values in WRONG.items():
            for value in values:
                with (
                    self.subTest(name, value=value),
                    actors_settings(**{name: value}),
                    self.assertRaisesRegex(ImproperlyConfigured, rf"^DJANGO_ACTORS: {name}\b"),
                ):
                    getattr(settings, name)

    def test_a_broker_that_is_refused_is_not_shown_because_of_its_password(self):
        value = {"URL": b"redis://:hunter2@host", "OPTION": "hunter2"}

        with actors_settings(BROKER=value), self.assertRaises(ImproperlyConfigured) as caught:
            _ = settings.BROKER

        self.assertNotIn("hunter2", str(caught.exception))
