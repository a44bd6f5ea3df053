"""What a newcomer does wrong is met with a sentence that names the cause and the cure."""

from __future__ import annotations

import contextlib
import functools
import io
import socket
import subprocess
import sys
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from unittest import mock

import redis
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connection, connections, transaction
from django.test import SimpleTestCase, TestCase, modify_settings, override_settings, tag
from django.utils.translation import gettext_lazy
from pika.exceptions import ProbableAccessDeniedError, ProbableAuthenticationError

from django_actors import Actor, actor, checks, conf
from django_actors.brokers import build_broker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.rabbitmq_link import describe, too_old
from django_actors.brokers.redis import RedisBroker
from django_actors.brokers.redis_connection import unavailable
from django_actors.claims import describe_trouble
from django_actors.cures import cure_of
from django_actors.delivery import Delivery
from django_actors.errors import BrokerUnavailable, UnencodableArgument
from django_actors.management.commands import runactors
from django_actors.models import DeadLetter
from django_actors.rows import build_delivery_row
from django_actors.waiting_room import WaitingRoom

from .engine import ActorsMixin, EngineCase, make_message
from .projects import ProjectCase, clean_environment
from .support import actors_settings

NOBODY = "127.0.0.1:1"


class SettingsTests(SimpleTestCase):
    def test_an_app_that_is_not_installed(self):
        with (
            modify_settings(INSTALLED_APPS={"remove": "django_actors"}),
            self.assertRaisesMessage(ImproperlyConfigured, "Add it there, and run manage.py migr"),
        ):
            build_broker("database://default")

    def test_a_setting_of_a_wrong_type_is_improperly_configured_and_not_a_type_error(self):
        for value, text in (
            ({"BROKER": 5}, "DJANGO_ACTORS: BROKER must be a URL or a dict"),
            ("redis://", "DJANGO_ACTORS must be a dict, not str."),
        ):
            with (
                self.subTest(value=value),
                override_settings(DJANGO_ACTORS=value),
                self.assertRaisesMessage(ImproperlyConfigured, text),
            ):
                build_broker(conf.settings.BROKER)

    def test_a_misspelled_parameter_of_a_url(self):
        for url, text in (
            (f"redis://{NOBODY}?sokcet_timeout=3", "no option 'sokcet_timeout'. Did you mean"),
            (f"amqp://{NOBODY}?hartbeat=3", "'hartbeat', which nobody knows. Did you mean 'heart"),
        ):
            with self.subTest(url), actors_settings(BROKER=url):
                (found,) = checks.check_settings()

                self.assertEqual(found.id, "django_actors.E101")
                self.assertIn(text, found.msg)

    def test_the_broker_of_tests_in_the_settings_of_the_project(self):
        for value in ("stub://", {"BACKEND": "django_actors.brokers.stub.StubBroker"}):
            with (
                self.subTest(value=value),
                actors_settings(BROKER=value),
                mock.patch.object(checks, "is_in_test", return_value=False),
            ):
                (found,) = checks.check_settings()

                self.assertEqual(found.id, "django_actors.W002")
                self.assertIn("no worker ever sees one", found.msg)

    def test_the_test_settings_of_django_dramatiq(self):
        with override_settings(DRAMATIQ_BROKER={"BROKER": "dramatiq.brokers.stub.StubBroker"}):
            (found,) = checks.check_settings()

        self.assertEqual(found.id, "django_actors.W003")
        self.assertIn("DRAMATIQ_BROKER, which django_actors does not read", found.msg)


class ProjectCallbackTests(ActorsMixin):
    def find(self, **options: Any) -> list[Any]:
        with actors_settings(ACTOR_OPTIONS=options):
            return checks.check_settings()

    def test_a_callback_for_the_whole_project_to_nobody(self):
        self.declare(lambda message, result: None, actor_name="after_work")

        (found,) = self.find(on_success="after_wrk")

        self.assertEqual(found.id, "django_actors.E012")
        self.assertEqual(found.hint, "Did you mean 'after_work'?")

    def test_a_callback_for_the_whole_project_that_calls_itself(self):
        for option in checks.CALLBACK_OPTIONS:
            name = f"after_{option}"
            self.declare(lambda message, result: None, actor_name=name)
            with self.subTest(option):
                (found,) = self.find(**{option: name})

                self.assertEqual(found.id, "django_actors.E013")
                self.assertEqual(found.hint, f"Write @actor({option}=None) on {name!r}.")

    def test_a_callback_that_stops_with_itself_is_fine(self):
        self.declare(lambda message, result: None, actor_name="end", on_success=None)

        self.assertEqual(self.find(on_success="end"), [])


class DeclarationTests(SimpleTestCase):
    def test_what_is_no_function_with_a_name(self):
        class Callable:
            def __call__(self) -> None: ...

        mistakes: list[tuple[Any, str]] = [
            (functools.partial(print, 1), "Write a function that calls it."),
            (Callable(), "Write a function that calls it."),
            (classmethod(print), "In a class write it below @staticmethod."),
            ("mail", '@actor(queue_name="mail")'),
            (Actor(lambda: None, actor_name="x"), "stands twice"),
        ]
        for what, text in mistakes:
            with self.subTest(what=what), self.assertRaisesMessage(TypeError, text):
                actor(what)


class Color(Enum):
    RED = 1


class SendingTests(ActorsMixin):
    def setUp(self) -> None:
        super().setUp()
        self.greet = self.declare(lambda name: None, actor_name="shop.greet")

    def test_an_argument_that_has_no_json_form_says_what_to_send(self):
        for value, hint in (
            (User(pk=3), "a User has no JSON form. Send its primary key"),
            (User.objects.all(), "Send a list of primary keys"),
            (timedelta(1), "Send value.total_seconds()."),
            (Path("/x"), "Send str(value)."),
            (Color.RED, "Send its value."),
            (gettext_lazy("x"), "send str(value)"),
        ):
            with self.subTest(hint), self.assertRaisesMessage(UnencodableArgument, hint):
                self.greet.send(value)

    def test_a_misspelled_option_of_a_message_is_no_option_that_nobody_knows(self):
        for name, meant in (("dealy", "delay"), ("max_retrys", "max_retries")):
            with (
                self.subTest(name),
                self.assertRaisesRegex(ValueError, f"'{name}', which no .*Did you mean '{meant}'"),
            ):
                options: dict[str, Any] = {name: 3}
                self.greet.send_with_options(args=("Ada",), **options)

    def test_an_option_that_resembles_nothing_travels_along(self):
        message = self.greet.message_with_options(args=("Ada",), tenant="north")

        self.assertEqual(message.options, {"tenant": "north"})

    def test_a_queue_for_one_message_names_the_way_that_works(self):
        with self.assertRaisesRegex(TypeError, r"copy\(queue_name='mail'\)"):
            self.greet.send_with_options(args=("Ada",), queue_name="mail")

        self.assertEqual(self.greet.message("Ada").copy(queue_name="mail").queue_name, "mail")

    def test_arguments_that_are_no_tuple(self):
        for args in ("Ada", 7, b"Ada"):
            with self.subTest(args=args), self.assertRaisesMessage(TypeError, "(argument,)"):
                self.greet.send_with_options(args=args)  # type: ignore[arg-type]


class ServerTests(SimpleTestCase):
    def test_a_server_that_does_not_run(self):
        for broker in (RedisBroker(f"redis://{NOBODY}"), RabbitmqBroker(f"amqp://{NOBODY}")):
            self.addCleanup(broker.close)
            with self.subTest(broker), self.assertRaises(BrokerUnavailable) as caught:
                broker.ping()

            self.assertIn(NOBODY, str(caught.exception))
            self.assertIn(
                "Start the server, or correct the host and the port in DJANGO_ACTORS['BROKER'].",
                str(caught.exception),
            )

    def test_a_host_that_there_is_not(self):
        text = "Correct the host in DJANGO_ACTORS['BROKER']."

        self.assertIn(text, cure_of(socket.gaierror(-2, "Name or service not known")))
        self.assertIn(text, describe(socket.gaierror(-2, "Name or service not known")))

    def test_a_login_that_is_refused(self):
        server = mock.Mock(place="cache:6379/0")
        refused = redis.AuthenticationError("invalid username-password pair")

        self.assertEqual(
            str(unavailable(server, refused)),
            "Redis at cache:6379/0 does not work: invalid username-password pair. Correct the "
            "user name and the password in DJANGO_ACTORS['BROKER'].",
        )
        self.assertEqual(
            describe(ProbableAuthenticationError()),
            "it refused the user name or the password. Correct them in DJANGO_ACTORS['BROKER'].",
        )
        self.assertIn("no such virtual host", describe(ProbableAccessDeniedError()))

    def test_a_cause_that_is_not_known_has_no_cure(self):
        self.assertEqual(cure_of(ValueError("?")), "")
        self.assertEqual(cure_of(None), "")

    def test_a_rabbitmq_that_is_too_old(self):
        for version in ("3.7.28", b"3.9.11"):
            with self.subTest(version):
                error = too_old({"product": "RabbitMQ", "version": version})

                self.assertIn("the broker needs 3.10 or newer. Upgrade it", str(error))

    def test_a_server_that_is_new_enough_or_does_not_say_is_used(self):
        for properties in (
            None,
            {},
            {"product": "RabbitMQ", "version": "3.10.8"},
            {"product": "RabbitMQ", "version": "4.1.0-rc.1"},
            {"product": "LavinMQ", "version": "2.0.0"},
        ):
            self.assertIsNone(too_old(properties))

    def test_a_database_that_somebody_keeps_locked(self):
        text = describe_trouble("default", OperationalError("database is locked"))

        self.assertIn("'default' is kept locked by another writer: database is locked.", text)
        self.assertIn("manage.py check --deploy", text)

    def test_a_database_that_cannot_be_reached(self):
        for reason in (
            'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection '
            "refused\n\tIs the server running on that host?",
            "failed to resolve host 'nohost': [Errno -2] Name or service not known",
            'connection failed: FATAL:  database "nope" does not exist',
            "(1045, \"Access denied for user 'x'@'localhost'\")",
        ):
            with self.subTest(reason):
                text = describe_trouble("default", OperationalError(reason))

                self.assertIn("does not answer", text)
                self.assertTrue(text.endswith("or correct DATABASES['default']."), text)
                self.assertNotIn("\n", text)

    def test_tables_that_are_not_there(self):
        text = describe_trouble("queue", OperationalError("no such table: django_actors_lease"))

        self.assertTrue(text.endswith("Run manage.py migrate --database queue."), text)


class CommandTests(TestCase):
    """``runactors`` says it in a sentence, with the exit code that no restart will mend."""

    def test_the_broker_of_tests(self):
        with (
            mock.patch.object(runactors, "is_in_test", return_value=False),
            self.assertRaisesMessage(CommandError, "no worker would ever see one") as caught,
        ):
            runactors.refuse_stub()

        self.assertEqual(caught.exception.returncode, 2)

    def test_a_misspelled_flag(self):
        parser = runactors.Command().create_parser("manage.py", "runactors")

        for given, meant in (("--tread", "--threads"), ("--queue-name=mail", "--queues")):
            with self.assertRaisesMessage(CommandError, f"Did you mean '{meant}'?"):
                parser.parse_args([given])

    def test_a_sqlite_that_is_not_set_up_for_several_writers(self):
        plain = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}

        with (
            actors_settings(),
            mock.patch.object(connections, "settings", plain),
            self.assertLogs("django_actors.MainProcess", "WARNING") as log,
        ):
            runactors.warn_of_databases()

        self.assertIn("may fail with 'database is locked'. Set its OPTIONS to", log.output[0])

    def test_settings_that_are_wrong(self):
        with (
            actors_settings(BROKR=1),
            self.assertRaisesMessage(SystemCheckError, "Did you mean 'BROKER'?") as caught,
        ):
            runactors.Command().check()

        self.assertEqual(caught.exception.returncode, 2)

    def test_settings_that_are_wrong_where_the_checks_are_skipped(self):
        wrong = mock.patch.object(runactors, "get_broker", side_effect=ImproperlyConfigured("Bad."))

        with wrong, self.assertRaisesMessage(CommandError, "Bad.") as caught:
            runactors.Command(stdout=io.StringIO()).handle(verbosity=0)

        self.assertEqual(caught.exception.returncode, 2)


class ImportTests(ProjectCase):
    """A ``tasks.py`` that cannot be imported: from where it begins, and no frame before that."""

    def run_command(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", "runactors"],
            cwd=self.directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
        )

    def test_runactors_shows_where_it_is_wrong_and_nothing_of_the_way_there(self):
        self.tasks.write_text("from django_actors import actor\nimport nothing_there\n")

        done = self.run_command()

        lines = done.stderr.splitlines()
        self.assertEqual(done.returncode, 2)
        self.assertEqual(len(lines), 5, done.stderr)
        self.assertIn("shop/tasks.py", lines[1])
        self.assertIn("No module named 'nothing_there'", lines[3])
        self.assertIn("actors of the app 'shop' were looked for in shop.tasks.", lines[4])

    def test_two_actors_of_one_name(self):
        self.tasks.write_text(
            "from django_actors import actor\n"
            "@actor\ndef greet(): ...\n"
            '@actor(actor_name="shop.greet")\ndef other(): ...\n'
        )

        done = self.run_command()

        self.assertEqual(done.returncode, 2)
        self.assertIn("Two actors are called 'shop.greet': one at", done.stderr)
        self.assertNotIn("django_actors/registry.py", done.stderr)


@tag("mysql")  # Others take every character.
class CharacterSetTests(EngineCase):
    """Tables of MariaDB that are not utf8mb4, as an old server makes them."""

    def setUp(self) -> None:
        super().setUp()
        self.convert("utf8mb3")
        self.addCleanup(self.convert, "utf8mb4")

    def convert(self, name: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"ALTER TABLE django_actors_waitingmessage CONVERT TO CHARACTER SET {name}"
            )

    def test_the_check_of_the_database_names_the_tables(self):
        (found,) = checks.check_tables(databases=["default"])

        self.assertEqual(found.id, "django_actors.W004")
        self.assertIn("django_actors_waitingmessage", found.msg)
        self.assertNotIn("django_actors_lease", found.msg)

    def test_the_start_of_the_workers_names_them_too(self):
        with self.assertLogs("django_actors.MainProcess", "WARNING") as log:
            runactors.warn_of_databases()

        self.assertIn("CONVERT TO CHARACTER SET utf8mb4", log.output[0])

    def test_a_dead_letter_is_kept_with_its_strange_characters_spelled_out(self):
        message = make_message(args=["\N{PARTY POPPER}"])
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.exception = ValueError("\N{PARTY POPPER} is no name.")
        delivery.fail()

        for atomic in (False, True):
            with self.subTest(atomic=atomic):
                with transaction.atomic() if atomic else contextlib.nullcontext():
                    WaitingRoom().put([build_delivery_row(delivery)])

                letter = DeadLetter.objects.get()
                self.assertEqual(letter.error, "\\U0001f389 is no name.")
                self.assertEqual(letter.message, message)


class GoodTableTests(TestCase):
    def test_tables_that_this_project_made_take_every_character(self):
        self.assertEqual(checks.check_tables(databases=["default"]), [])

    def test_a_database_that_was_not_named_is_not_asked(self):
        with mock.patch.object(checks, "connections") as connections:
            connections.settings = {"default": {}}
            self.assertEqual(checks.check_tables(), [])
