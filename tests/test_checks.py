"""System checks: every mistake in the settings is named by ``manage.py check``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.core import checks as django_checks
from django.core.checks import CheckMessage
from django.db import connections
from django.test import SimpleTestCase, override_settings

import django_actors
from django_actors import checks
from django_actors.middleware import Middleware

from .engine import ActorsMixin
from .support import actors_settings


class Broken(Middleware):
    """A middleware that cannot be built."""

    def __init__(self) -> None:
        raise KeyError("no such host")


class Mistake(NamedTuple):
    """A wrong setting, and what is found: the id, a part of the message and of the hint."""

    id: str
    setting: Any
    message: str
    hint: str


MISTAKES = [
    Mistake("E001", "redis://", "must be a dict, not str", 'DJANGO_ACTORS = {"BROKER"'),
    Mistake("E001", None, "must be a dict, not NoneType", 'DJANGO_ACTORS = {"BROKER"'),
    Mistake("E002", {"BROKR": "stub://"}, "no setting 'BROKR'", "Did you mean 'BROKER'?"),
    Mistake("E002", {"ZZZZ": 1}, "no setting 'ZZZZ'", "There are: ACTOR_OPTIONS, ATTEMPT_TTL"),
    Mistake("E002", {5: 1}, "no setting 5", "There are: "),
    Mistake("E003", {"CRASH_LIMIT": 0}, "CRASH_LIMIT must be an integer from 1", "default is 3."),
    Mistake("E003", {"BROKER": None}, "BROKER must be a URL or a dict", "'database://default'"),
    Mistake("E003", {"AUTODISCOVER": "tasks"}, "AUTODISCOVER must be a list", "['tasks']"),
    Mistake("E003", {"ON_TRANSACTION": "x"}, "must be one of 'outbox', 'on_comm", "'outbox'"),
    Mistake("E003", {"SIGNING": True}, "SIGNING must be one of 'off', 'sign', 're", "'off'"),
    Mistake("E004", {"DATABASE": "defalt"}, "is 'defalt', which DATABASES", "mean 'default'?"),
    Mistake("E004", {"DATABASE": "queue"}, "is 'queue', which DATABASES", "There are: default"),
    Mistake("E005", {"BROKER": "databse://x"}, "mean 'database'?", "database://default"),
    Mistake("E005", {"BROKER": "no url"}, "is no URL: it has no scheme", "database://default"),
    Mistake("E005", {"BROKER": {"URL": "smtp://x"}}, "scheme 'smtp'", "database://default"),
    Mistake("E006", {"BROKER": "database://defalt"}, "database 'defalt'", "mean 'default'?"),
    Mistake("E006", {"BROKER": {"URL": "database://q"}}, "database 'q'", "There are: default"),
    Mistake("E007", {"MIDDLEWARE": ["a.b.C"]}, "'a.b.C', which cannot be built: No", "path"),
    Mistake("E007", {"MIDDLEWARE": ["collections.OrderedDict"]}, "no subclass of", "path"),
    Mistake("E007", {"MIDDLEWARE": [f"{__name__}.Broken"]}, "no such host", "path"),
    Mistake(
        "E007",
        {"MIDDLEWARE": [("django_actors.middleware.Retries", {"max_retry": 1})]},
        "unexpected keyword argument 'max_retry'",
        "its arguments",
    ),
    Mistake("E008", {"ACTOR_OPTIONS": {"max_retry": 1}}, "'max_retry'", "mean 'max_retries'?"),
    Mistake("E008", {"ACTOR_OPTIONS": {"zzzz": 1}}, "'zzzz'", "There are: max_age, max_backoff"),
    Mistake("E008", {"ACTOR_OPTIONS": {"sensitive": ("x",)}}, "'sensitive'", "There are: "),
    Mistake("E009", {"ACTOR_OPTIONS": {"max_age": -1}}, "max_age must be 0 ms", "max_age="),
    Mistake(
        "E101",
        {
            "BROKER": {
                "BACKEND": "django_actors.brokers.stub.StubBroker",
                "OPTIONS": {"color": "red"},
            }
        },
        "unexpected keyword argument 'color'",
        "DJANGO_ACTORS['BROKER']",
    ),
    Mistake("E011", {"BROKER": {"BACKEND": "a.b.C"}}, "BACKEND 'a.b.C'", "django_actors.Broker"),
]

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}


def find(setting: Any) -> list[CheckMessage]:
    """Return what ``manage.py check`` finds with this value of DJANGO_ACTORS."""
    with override_settings(DJANGO_ACTORS=setting):
        return checks.check_settings()


def ids_in_source() -> list[str]:
    source = Path(checks.__file__).read_text()
    return re.findall(r'id="(django_actors\.[EW]\d{3})"', source)


class IdTests(SimpleTestCase):
    def test_no_id_stands_for_two_checks(self):
        ids = ids_in_source()

        self.assertEqual(sorted(ids), sorted(set(ids)))

    def test_every_id_has_a_test(self):
        tested_below = {"E010", "W001", "W005"}
        in_test_mistakes = {"E012", "E013", "W002", "W003", "W004"}

        tested = {mistake.id for mistake in MISTAKES} | tested_below | in_test_mistakes

        self.assertEqual({f"django_actors.{name}" for name in tested}, set(ids_in_source()))


class SettingsTests(SimpleTestCase):
    def test_each_mistake_is_named_once_with_an_id_and_a_hint(self):
        for mistake in MISTAKES:
            with self.subTest(mistake.id, setting=mistake.setting):
                (found,) = find(mistake.setting)

                self.assertEqual(found.id, f"django_actors.{mistake.id}")
                self.assertIn(mistake.message, found.msg)
                self.assertIn(mistake.hint, found.hint or "")
                self.assertTrue(found.is_serious(django_checks.ERROR))

    def test_good_settings_have_no_mistake(self):
        for setting in (
            {},
            {"BROKER": "stub://"},
            {"BROKER": "database://"},
            {"BROKER": "database://default"},
            {"BROKER": {"BACKEND": "django_actors.brokers.stub.StubBroker"}},
            {"MIDDLEWARE": [("django_actors.middleware.Retries", {"max_retries": 1})]},
            {"ACTOR_OPTIONS": {"max_age": 1_000, "throws": (ValueError,)}},
        ):
            with self.subTest(setting=setting):
                self.assertEqual(find(setting), [])

    def test_a_project_without_the_setting_has_no_mistake(self):
        with override_settings():
            del settings.DJANGO_ACTORS

            self.assertEqual(checks.check_settings(), [])

    def test_several_mistakes_are_all_named(self):
        found = find({"BROKR": 1, "CRASH_LIMIT": 0, "NAMESPACE": ""})

        self.assertEqual(
            sorted(each.id for each in found),
            ["django_actors.E002", "django_actors.E003", "django_actors.E003"],
        )

    def test_a_password_is_never_shown(self):
        for broker in (
            "reddis://:hunter2@host",
            "redis:hunter2@host",
            {"URL": "reddis://:hunter2@host"},
            {"URL": b"redis://:hunter2@host"},
            ["redis://:hunter2@host"],
        ):
            with self.subTest(broker=broker):
                (found,) = find({"BROKER": broker})

                self.assertNotIn("hunter2", f"{found.msg} {found.hint}")

    def test_a_middleware_of_the_project_brings_options_for_the_whole_project(self):
        class_path = "tests.test_actor.Colors"

        self.assertEqual(find({"MIDDLEWARE": [class_path], "ACTOR_OPTIONS": {"color": "red"}}), [])
        (found,) = find({"MIDDLEWARE": [class_path], "ACTOR_OPTIONS": {"color": "blue"}})
        self.assertEqual(found.id, "django_actors.E009")


class CallbackTests(ActorsMixin):
    def test_a_callback_to_nobody_is_named_with_the_actor_that_has_it(self):
        self.declare(lambda message, result: None, actor_name="after_work")
        for option in ("on_success", "on_failure", "on_retry_exhausted"):
            actor_name = f"work_{option}"
            self.declare(lambda: None, actor_name=actor_name, **{option: "after_wrk"})

            found = [each for each in find({}) if actor_name in each.msg]

            with self.subTest(option):
                self.assertEqual([each.id for each in found], ["django_actors.E010"])
                self.assertIn(f"{option}='after_wrk'", found[0].msg)
                self.assertEqual(found[0].hint, "Did you mean 'after_work'?")

    def test_a_callback_to_somebody_is_fine(self):
        after = self.declare(lambda message, result: None, actor_name="after_work")
        self.declare(lambda: None, actor_name="work", on_success=after, on_failure="after_work")

        self.assertEqual(find({}), [])


class DeployTests(SimpleTestCase):
    def find(self, setting: Any = None, **databases: Any) -> list[CheckMessage]:
        configured = {**connections.settings, **databases}
        with actors_settings(**(setting or {})):
            # The handler keeps what DATABASES was when Django started.
            connections.settings, before = configured, connections.settings
            try:
                return checks.check_deploy()
            finally:
                connections.settings = before

    def test_sqlite_that_is_not_set_up_for_several_writers_is_warned_of(self):
        (found,) = self.find(default=SQLITE)

        self.assertEqual((found.id, found.level), ("django_actors.W001", django_checks.WARNING))
        self.assertIn("SQLite database 'default'", found.msg)
        self.assertIn("'transaction_mode': 'IMMEDIATE'", found.hint or "")

    def test_sqlite_that_is_set_up_is_fine(self):
        for mode in ("IMMEDIATE", "EXCLUSIVE"):
            options = {"transaction_mode": mode}
            with self.subTest(mode):
                self.assertEqual(self.find(default={**SQLITE, "OPTIONS": options}), [])

    def test_every_database_the_engine_uses_is_looked_at_and_no_other(self):
        good = {**SQLITE, "OPTIONS": {"transaction_mode": "IMMEDIATE"}}

        for setting, aliases in (
            ({}, []),
            ({"DATABASE": "queue"}, ["queue"]),
            ({"BROKER": "database://queue"}, ["queue"]),
        ):
            with self.subTest(setting=setting):
                found = self.find(setting, default=good, queue=SQLITE)

                named = [each.msg.split("'")[1] for each in found]
                self.assertEqual(named, aliases)

    def test_other_databases_are_fine(self):
        self.assertEqual(self.find(default={"ENGINE": "django.db.backends.postgresql"}), [])

    def test_who_signs_but_runs_unsigned_messages_is_reminded(self):
        (found,) = self.find({"SIGNING": "sign"}, default={"ENGINE": ""})

        self.assertEqual(found.id, "django_actors.W005")
        self.assertEqual(self.find({"SIGNING": "require"}, default={"ENGINE": ""}), [])

    def test_with_wrong_settings_those_are_named_and_not_the_database(self):
        self.assertEqual(self.find({"BROKR": 1}, default=SQLITE), [])


class RegisteredTests(SimpleTestCase):
    def run_checks(self, **options: Any) -> set[str | None]:
        return {each.id for each in django_checks.run_checks(**options)}

    def test_manage_py_check_runs_them(self):
        with actors_settings(BROKR=1):
            self.assertIn("django_actors.E002", self.run_checks())

    def test_they_have_a_tag_of_their_own(self):
        with actors_settings(BROKR=1):
            self.assertEqual(self.run_checks(tags=["django_actors"]), {"django_actors.E002"})

    def test_check_deploy_runs_those_for_production_as_well(self):
        with actors_settings():
            connections.settings, before = {"default": SQLITE}, connections.settings
            try:
                self.assertNotIn("django_actors.W001", self.run_checks())
                self.assertIn("django_actors.W001", self.run_checks(include_deployment_checks=True))
            finally:
                connections.settings = before


PROJECT = """
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django_actors", "words"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DJANGO_ACTORS=%r,
)
import django
from django.core.management import call_command
django.setup()
call_command("check")
"""


class CommandTests(SimpleTestCase):
    """No mistake is so bad that Django cannot start and name it, actors and all."""

    def test_the_command_names_the_mistake_instead_of_a_traceback_at_the_start(self):
        root = Path(django_actors.__file__).parent.parent
        for setting, text in (
            ("redis://", "django_actors.E001"),
            ({"AUTODISCOVER": "tasks"}, "django_actors.E003"),
            ({"MIDDLEWARE": ["no.such.Middleware"]}, "django_actors.E007"),
        ):
            with self.subTest(setting=setting):
                process = subprocess.run(
                    [sys.executable, "-c", PROJECT % (setting,)],
                    cwd=root,
                    env={"PYTHONPATH": str(root / "testproject")},
                    capture_output=True,
                    text=True,
                )

                self.assertIn("SystemCheckError", process.stderr)
                self.assertIn(text, process.stderr)
                self.assertEqual(process.returncode, 1)
