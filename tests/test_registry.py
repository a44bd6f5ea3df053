"""Which actors a process knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from django.test import SimpleTestCase

from django_actors.errors import ActorNotFound
from django_actors.registry import Registry, nearest

NOT_READY = SimpleNamespace(apps_ready=False)


class Stub:
    """What the registry needs of an actor."""

    def __init__(self, name: str, place: str = "a.py:1", queue: str = "default") -> None:
        self.actor_name = name
        self.place = place
        self.queue_name = queue
        self.wrong: Exception | None = None
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        if self.wrong is not None:
            raise self.wrong


class RegistryTests(SimpleTestCase):
    def setUp(self) -> None:
        self.registry = Registry()

    def add(self, *actors: Any) -> None:
        for actor in actors:
            self.registry.add(actor)

    def test_an_actor_is_found_by_its_name(self):
        add = Stub("add")
        self.add(add)

        self.assertIs(self.registry.get("add"), add)
        self.assertIs(self.registry.find("add"), add)
        self.assertEqual(self.registry.actors(), {"add": add})

    def test_an_actor_is_checked_when_it_is_taken_in(self):
        add = Stub("add")

        self.add(add)

        self.assertEqual(add.checks, 1)

    def test_an_unknown_name_is_an_error_that_names_the_closest_one(self):
        self.add(Stub("shop.count_words"))

        with self.assertRaisesRegex(
            ActorNotFound, r"no actor 'shop\.count_wrods'.*Did you mean 'shop\.count_words'\?"
        ):
            self.registry.get("shop.count_wrods")
        self.assertIsNone(self.registry.find("shop.count_wrods"))

    def test_a_name_that_is_like_no_other_has_no_advice(self):
        self.add(Stub("add"))

        with self.assertRaises(ActorNotFound) as caught:
            self.registry.get("zzzzzz")

        self.assertNotIn("Did you mean", str(caught.exception))

    def test_two_actors_with_one_name_are_an_error_that_names_both_places(self):
        first, second = Stub("add", "a.py:1"), Stub("add", "b.py:2")
        self.add(first)

        with self.assertRaisesRegex(ValueError, r"'add'.*a\.py:1.*b\.py:2.*actor_name="):
            self.add(second)

        self.assertIs(self.registry.get("add"), first)

    def test_a_module_that_is_loaded_again_replaces_its_actors(self):
        first, second = Stub("add"), Stub("add")
        self.add(first, second)

        self.assertIs(self.registry.get("add"), second)

    def test_an_actor_that_is_wrong_is_not_taken_in(self):
        wrong = Stub("add")
        wrong.wrong = ValueError("no such option")

        with self.assertRaisesRegex(ValueError, "no such option"):
            self.add(wrong)

        self.assertEqual(self.registry.actors(), {})

    def test_the_version_grows_with_every_actor_so_that_workers_see_new_queues(self):
        versions = [self.registry.version]
        for name in ("add", "multiply"):
            self.add(Stub(name))
            versions.append(self.registry.version)
        self.registry.remove("add")
        versions.append(self.registry.version)

        self.assertEqual(versions, sorted(set(versions)))

    def test_the_queues_are_those_of_the_actors(self):
        self.add(Stub("add"), Stub("mail", queue="mail"), Stub("more", queue="mail"))

        self.assertEqual(self.registry.queue_names(), {"default", "mail"})

    def test_a_removed_actor_is_unknown_and_removing_it_again_is_no_error(self):
        self.add(Stub("add"))

        self.registry.remove("add")
        self.registry.remove("add")

        self.assertIsNone(self.registry.find("add"))

    def test_who_changes_the_dict_of_actors_does_not_change_the_registry(self):
        self.add(Stub("add"))

        self.registry.actors().clear()

        self.assertIsNotNone(self.registry.find("add"))


class BeforeDjangoIsReadyTests(SimpleTestCase):
    """An actor may stand in a module that is imported before the apps are known."""

    def setUp(self) -> None:
        self.registry = Registry()

    def add_early(self, *actors: Any) -> None:
        with patch("django_actors.registry.apps", NOT_READY):
            for actor in actors:
                self.registry.add(actor)

    def test_an_early_actor_is_neither_named_nor_checked(self):
        class Unnamed(Stub):
            @property
            def actor_name(self):
                raise AssertionError("It has no name yet.")

            @actor_name.setter
            def actor_name(self, name):
                pass

        early = Unnamed("add")

        self.add_early(early)

        self.assertEqual(early.checks, 0)

    def test_early_actors_are_unknown_until_django_is_ready(self):
        self.add_early(Stub("add"))

        with patch("django_actors.registry.apps", NOT_READY):
            self.assertEqual(self.registry.actors(), {})
            with self.assertRaises(ActorNotFound):
                self.registry.get("add")

    def test_early_actors_are_known_as_soon_as_anybody_asks_after_that(self):
        add = Stub("add")
        for ask in (
            lambda: self.registry.get("add"),
            lambda: self.registry.actors()["add"],
        ):
            self.registry = Registry()
            self.add_early(add)

            self.assertIs(ask(), add)

    def test_they_are_known_when_django_says_that_it_is_ready(self):
        add = Stub("add")
        self.add_early(add)

        self.registry.resolve()

        self.assertIs(self.registry.find("add"), add)

    def test_a_wrong_early_actor_is_an_error_then_and_does_not_hide_the_others(self):
        wrong, right = Stub("wrong"), Stub("right")
        wrong.wrong = ValueError("no such option")
        self.add_early(wrong, right)

        with self.assertRaisesRegex(ValueError, "no such option"):
            self.registry.resolve()

        self.assertIs(self.registry.get("right"), right)

    def test_two_early_actors_with_one_name_are_an_error_then(self):
        self.add_early(Stub("add", "a.py:1"), Stub("add", "b.py:2"))

        with self.assertRaisesRegex(ValueError, r"a\.py:1.*b\.py:2"):
            self.registry.resolve()


class NearestTests(SimpleTestCase):
    def test_the_closest_name_is_proposed(self):
        self.assertEqual(nearest("BROKR", ["DATABASE", "BROKER"]), " Did you mean 'BROKER'?")

    def test_nothing_is_proposed_for_a_name_like_no_other(self):
        self.assertEqual(nearest("zzz", ["DATABASE", "BROKER"]), "")
        self.assertEqual(nearest("zzz", []), "")
