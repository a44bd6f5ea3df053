"""Which broker a process uses, and what the package calls its own."""

from __future__ import annotations

import importlib
from typing import Any
from unittest.mock import patch

from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase

import django_actors
from django_actors import brokers, get_broker, set_broker
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.middleware import AgeLimit

from .engine import in_thread
from .support import actors_settings

STUB = "django_actors.brokers.stub.StubBroker"


class ChosenTests(SimpleTestCase):
    def setUp(self) -> None:
        self.addCleanup(set_broker, None)

    def test_the_one_that_was_set_is_used_in_the_whole_process(self):
        broker = StubBroker()

        set_broker(broker)

        self.assertIs(get_broker(), broker)
        self.assertIs(in_thread(get_broker), broker)

    def test_with_none_set_the_settings_decide_again(self):
        set_broker(StubBroker())
        chosen = get_broker()

        set_broker(None)

        self.assertIsNot(get_broker(), chosen)
        self.assertIs(get_broker(), get_broker())

    def test_in_a_test_it_is_a_stub_whatever_the_settings_say(self):
        for url in ("database://default", "redis://localhost"):
            with self.subTest(url), actors_settings(BROKER=url):
                self.assertIsInstance(get_broker(), StubBroker)

    def test_elsewhere_it_is_what_the_settings_say(self):
        with (
            patch.object(brokers, "is_in_test", lambda: False),
            actors_settings(BROKER="database://default"),
        ):
            self.assertIsInstance(get_broker(), DatabaseBroker)
        self.assertIsInstance(get_broker(), StubBroker)

    def test_other_settings_are_another_broker_and_the_old_one_is_closed(self):
        with actors_settings():
            first = get_broker()
            with patch.object(first, "close") as close, actors_settings(MIDDLEWARE=[]):
                self.assertIsNot(get_broker(), first)
                self.assertEqual(get_broker().middleware, [])

        close.assert_called_once_with()

    def test_settings_of_others_change_nothing(self):
        first = get_broker()

        with self.settings(DEBUG=True):
            self.assertIs(get_broker(), first)


class BuildTests(SimpleTestCase):
    def test_a_url_names_the_broker_by_its_scheme(self):
        self.assertIsInstance(brokers.build_broker("stub://"), StubBroker)
        self.assertIsInstance(brokers.build_broker("database://default"), DatabaseBroker)
        self.assertIsInstance(brokers.build_broker({"URL": "stub://"}), StubBroker)

    def test_a_dict_names_it_by_its_path_and_gives_it_arguments(self):
        broker: Any = brokers.build_broker(
            {"BACKEND": STUB, "OPTIONS": {"fail_fast": False, "middleware": [AgeLimit()]}}
        )

        self.assertIsInstance(broker, StubBroker)
        self.assertFalse(broker.fail_fast)
        self.assertEqual([type(each) for each in broker.middleware], [AgeLimit])

    def test_every_scheme_leads_to_a_class(self):
        for scheme, path in brokers.SCHEMES.items():
            module, _, name = path.rpartition(".")
            with self.subTest(scheme):
                self.assertTrue(
                    issubclass(getattr(importlib.import_module(module), name), django_actors.Broker)
                )

    def test_what_describes_no_broker_is_an_error_without_the_password(self):
        for setting, text in (
            ("reddis://:hunter2@host", "the scheme 'reddis', which no broker has. Did you mean"),
            ("hunter2", "is no URL"),
            ({"BACKEND": "no.such.Broker", "URL": "x://:hunter2@"}, "No module named 'no'"),
            ({"BACKEND": STUB, "OPTIONS": {"color": 1}}, "unexpected keyword argument 'color'"),
            ({"BACKEND": "collections.OrderedDict"}, "no subclass of django_actors.Broker"),
        ):
            with (
                self.subTest(text),
                self.assertRaisesRegex(ImproperlyConfigured, text) as caught,
            ):
                brokers.build_broker(setting)
            self.assertNotIn("hunter2", str(caught.exception))


class PublicNamesTests(SimpleTestCase):
    def test_every_public_name_is_there(self):
        names = (
            "actor Actor GenericActor Broker Consumer Worker Message Middleware "
            "get_broker set_broker"
        )

        self.assertEqual(set(django_actors.__all__), set(names.split(" ")))
        for name in django_actors.__all__:
            with self.subTest(name):
                self.assertTrue(callable(getattr(django_actors, name)))

    def test_names_that_need_models_are_loaded_when_they_are_asked_for(self):
        for name in ("Broker", "Consumer", "Worker"):
            with self.subTest(name):
                vars(django_actors).pop(name, None)

                self.assertEqual(getattr(django_actors, name).__name__, name)

    def test_actor_is_the_decorator_even_after_its_module_was_imported(self):
        importlib.import_module("django_actors.actor")

        self.assertTrue(callable(django_actors.actor))
        self.assertEqual(django_actors.actor.__name__, "actor")

    def test_a_name_that_does_not_exist_is_an_attribute_error(self):
        with self.assertRaisesRegex(AttributeError, "no attribute 'aktor'"):
            _ = django_actors.aktor
