"""Which calls fit a function, and which of its parameters takes an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import SimpleTestCase
from hypothesis import strategies as st

from django_actors.parameters import Parameters

from .support import property_test


def nothing(): ...
def two(a, b): ...
def optional(a, b=1): ...
def positional_only(a, /, b): ...
def many(a, *rest): ...
def keyword_only(a, *, b): ...
def optional_keyword(a, *, b=1): ...
def anything(*args, **kwargs): ...
def named(a, **more): ...


FUNCTIONS: list[Callable[..., Any]] = [
    nothing,
    two,
    optional,
    positional_only,
    many,
    keyword_only,
    optional_keyword,
    anything,
    named,
]


def fits(function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    try:
        function(*args, **kwargs)
    except TypeError:
        return False
    return True


class CheckTests(SimpleTestCase):
    @property_test(
        st.sampled_from(FUNCTIONS),
        st.lists(st.integers(), max_size=4),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(), max_size=3),
    )
    def test_a_call_fits_exactly_if_python_takes_it(self, function, args, kwargs):
        expected = fits(function, args, kwargs)

        self.assertEqual(fits(Parameters(function).check, (args, kwargs), {}), expected)

    def test_what_does_not_fit_is_told_as_python_tells_it(self):
        with self.assertRaisesRegex(TypeError, "missing a required argument: 'b'"):
            Parameters(two).check((1,), {})


class NameTests(SimpleTestCase):
    def test_all_names_in_order(self):
        self.assertEqual(Parameters(named).names, ["a", "more"])
        self.assertEqual(str(Parameters(optional)), "(a, b=1)")

    def test_who_takes_each_positional_argument(self):
        cases: list[tuple[Callable[..., Any], int, list[str]]] = [
            (two, 2, ["a", "b"]),
            (two, 1, ["a"]),
            (two, 3, ["a", "b", ""]),
            (many, 3, ["a", "rest", "rest"]),
            (many, 1, ["a"]),
            (keyword_only, 2, ["a", ""]),
            (anything, 2, ["args", "args"]),
        ]
        for function, count, expected in cases:
            with self.subTest(function.__name__, count=count):
                self.assertEqual(Parameters(function).of_positional(count), expected)

    def test_who_takes_a_keyword_argument(self):
        cases: list[tuple[Callable[..., Any], str, str]] = [
            (two, "b", "b"),
            (keyword_only, "b", "b"),
            (named, "color", "more"),
            (named, "a", "a"),
            (positional_only, "a", "a"),
            (two, "color", "color"),
        ]
        for function, keyword, expected in cases:
            with self.subTest(function.__name__, keyword=keyword):
                self.assertEqual(Parameters(function).of_keyword(keyword), expected)
