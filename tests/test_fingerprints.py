"""What failures have in common, and where in the project they were raised."""

from __future__ import annotations

import json
import sys

from django.test import SimpleTestCase

from django_actors.fingerprints import NOWHERE, Place, find_place, fingerprint, is_of_project

HERE = "tests.test_fingerprints"


def place_of(function):
    try:
        function()
    except BaseException as error:
        return find_place(error)
    raise AssertionError("It did not raise.")


def divide():
    return 1 // 0


def parse():
    return json.loads("{")


class PlaceTests(SimpleTestCase):
    def test_it_is_the_innermost_function_of_the_project(self):
        place = place_of(divide)

        self.assertEqual(place.function, f"{HERE}.divide")
        self.assertEqual(str(place), f"{HERE}.divide:{place.line}")
        self.assertGreater(place.line, 1)

    def test_what_raises_in_a_library_belongs_to_who_called_it(self):
        self.assertEqual(place_of(parse).function, f"{HERE}.parse")

    def test_where_nothing_is_the_project_s_it_is_the_innermost_of_all(self):
        try:
            json.loads("{")
        except ValueError as error:
            outer = error.__traceback__
            assert outer is not None
            place = find_place(error.with_traceback(outer.tb_next))

        self.assertEqual(place.function.partition(".")[0], "json")

    def test_an_exception_that_was_never_raised_has_none(self):
        self.assertEqual(find_place(ValueError("x")), NOWHERE)
        self.assertEqual(str(NOWHERE), "")

    def test_a_deep_recursion_has_a_place(self):
        def fall():
            return fall()

        self.assertIn("fall", place_of(fall).function)

    def test_files_of_python_and_of_packages_are_not_the_project_s(self):
        for path in (
            json.__file__,
            sys.modules["django"].__file__,
            sys.modules["django_actors"].__file__,
            "/srv/venv/lib/python3.12/site-packages/shop/tasks.py",
            "C:\\venv\\Lib\\site-packages\\shop\\tasks.py",
            "/usr/lib/python3.11/json/decoder.py",
            "<frozen importlib._bootstrap>",
            "<string>",
        ):
            with self.subTest(path=path):
                self.assertFalse(is_of_project(str(path)))

        self.assertTrue(is_of_project("/srv/shop/tasks.py"))
        self.assertTrue(is_of_project(__file__))


class FingerprintTests(SimpleTestCase):
    def test_the_line_does_not_count(self):
        one = fingerprint("shop.pay", "KeyError", Place("shop.tasks.pay", 12))
        other = fingerprint("shop.pay", "KeyError", Place("shop.tasks.pay", 99))

        self.assertEqual(one, other)
        self.assertEqual(len(one), 32)

    def test_actor_exception_and_function_count(self):
        place = Place("shop.tasks.pay", 12)
        all_of_them = {
            fingerprint("shop.pay", "KeyError", place),
            fingerprint("shop.ship", "KeyError", place),
            fingerprint("shop.pay", "ValueError", place),
            fingerprint("shop.pay", "KeyError", Place("shop.tasks.charge", 12)),
        }

        self.assertEqual(len(all_of_them), 4)

    def test_half_a_character_in_a_name_breaks_nothing(self):
        self.assertEqual(len(fingerprint("\ud800", "KeyError", NOWHERE)), 32)
