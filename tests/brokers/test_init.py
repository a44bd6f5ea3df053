"""Which broker a process uses."""

from __future__ import annotations

from unittest import mock

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings
from django.utils.module_loading import import_string

from django_actors import brokers
from django_actors.brokers import (
    SCHEMES,
    backend_of,
    build_broker,
    current_middleware,
    get_broker,
    set_broker,
)
from django_actors.brokers.base import Broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.middleware import AgeLimit, Retries
from tests.engine import begin


def broker_setting(value: object) -> override_settings:
    return override_settings(DJANGO_ACTORS={"BROKER": value})


class ProcessCase(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        set_broker(None)
        self.addCleanup(set_broker, None)
        # What this test configures is nobody else's.
        self.enterContext(broker_setting("database://default"))
        self.addCleanup(brokers._forget_configured, setting="DJANGO_ACTORS")


class InProductionTests(ProcessCase):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(brokers, "is_in_test", return_value=False))

    def test_the_settings_decide(self):
        broker = get_broker()

        assert isinstance(broker, DatabaseBroker)
        self.assertEqual(broker.alias, "default")

    def test_it_is_always_the_same_one(self):
        self.assertIs(get_broker(), get_broker())

    def test_threads_that_ask_together_get_the_same_one(self):
        tasks = [begin(get_broker) for _ in range(20)]

        self.assertEqual(len({id(task.result()) for task in tasks}), 1)

    def test_the_one_that_was_set_is_used(self):
        configured, chosen = get_broker(), StubBroker()

        set_broker(chosen)
        self.assertIs(get_broker(), chosen)

        set_broker(None)
        self.assertIs(get_broker(), configured)

    def test_other_settings_make_another_one_and_close_the_old_one(self):
        old = get_broker()

        with mock.patch.object(old, "close") as close, broker_setting("stub://"):
            self.assertIsInstance(get_broker(), StubBroker)

        close.assert_called()
        self.assertIsInstance(get_broker(), DatabaseBroker)
        self.assertIsNot(get_broker(), old)

    def test_settings_of_others_change_nothing(self):
        broker = get_broker()

        with self.settings(DEBUG=True):
            self.assertIs(get_broker(), broker)

    def test_the_middleware_is_that_of_the_broker(self):
        set_broker(StubBroker(middleware=[AgeLimit()]))

        self.assertEqual([type(each) for each in current_middleware()], [AgeLimit])

    def test_before_there_is_a_broker_the_middleware_is_that_of_the_settings(self):
        self.assertTrue(any(isinstance(each, Retries) for each in current_middleware()))
        self.assertIsNone(brokers._configured)


class InTestTests(ProcessCase):
    def test_it_is_a_stub_whatever_the_settings_say(self):
        self.assertTrue(hasattr(mail, "outbox"))
        self.assertIsInstance(get_broker(), StubBroker)

    def test_the_one_that_was_set_is_used(self):
        chosen = DatabaseBroker()

        set_broker(chosen)

        self.assertIs(get_broker(), chosen)


class SettingTests(SimpleTestCase):
    def test_every_scheme_leads_to_a_broker(self):
        for scheme, path in SCHEMES.items():
            with self.subTest(scheme=scheme):
                self.assertEqual(backend_of(f"{scheme}://host/0?option=1"), path)
                self.assertTrue(issubclass(import_string(path), Broker))

    def test_a_url_is_enough(self):
        self.assertIsInstance(build_broker("stub://"), StubBroker)
        self.assertIsInstance(build_broker({"URL": "stub://"}), StubBroker)

    def test_a_backend_and_options_can_be_named(self):
        broker = build_broker(
            {
                "BACKEND": "django_actors.brokers.stub.StubBroker",
                "OPTIONS": {"fail_fast": False, "middleware": [AgeLimit()]},
            }
        )

        assert isinstance(broker, StubBroker)
        self.assertFalse(broker.fail_fast)
        self.assertEqual([type(each) for each in broker.middleware], [AgeLimit])

    def test_a_backend_gets_its_url(self):
        broker = build_broker(
            {
                "BACKEND": "django_actors.brokers.database.DatabaseBroker",
                "URL": "database://default",
            }
        )

        assert isinstance(broker, DatabaseBroker)
        self.assertEqual(broker.alias, "default")

    def test_a_scheme_no_broker_has_is_an_error_that_names_the_nearest(self):
        with self.assertRaisesMessage(ImproperlyConfigured, "Did you mean 'database'?"):
            build_broker("databse://default")

    def test_an_error_never_shows_the_url(self):
        with self.assertRaises(ImproperlyConfigured) as caught:
            build_broker("mysql://user:s3cr3t@host/")

        self.assertNotIn("s3cr3t", str(caught.exception))

    def test_what_leads_to_no_broker_is_an_error(self):
        for setting in (
            {"BACKEND": "django_actors.brokers.nothing.Broker"},
            {"BACKEND": "django_actors.brokers.stub.StubBroker", "OPTIONS": {"fast": True}},
            {"BACKEND": "collections.OrderedDict"},
            {},
            "",
        ):
            with self.subTest(setting=setting):
                self.assertRaises(ImproperlyConfigured, build_broker, setting)
