"""The examples of the pages about tests: each runs, and none is longer than eight lines."""

from __future__ import annotations

import datetime
import io
import re
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, tag

import django_actors.test
from django_actors import Worker, actor, get_broker
from django_actors.errors import BrokerUnavailable
from django_actors.registry import registry
from tests.projects import ROOT
from words.tasks import count_words

PAGES = [ROOT / "docs" / "how-to" / name for name in ("test-an-actor.md", "move-your-tests.md")]
LONGEST = 8


class Block(NamedTuple):
    page: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def is_test(self) -> bool:
        return "def test_" in self.code

    def run_in(self, namespace: dict[str, Any]) -> None:
        source = "\n" * (self.line - 1) + self.code
        exec(compile(source, self.page, "exec"), namespace)


def read_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text.count("\n", 0, match.start(1)) + 1, match[1])


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def greet(name: str) -> str:
    return f"Hello, {name}"


class ExamplesCase(SimpleTestCase):
    """Runs each example as a test case of its own."""

    databases = "__all__"

    def run_examples(self, *, processes: bool) -> None:
        for block in BLOCKS:
            if ("with real_worker" in block.code) is processes:
                with self.subTest(str(block)):
                    self.run_example(block)

    def run_example(self, block: Block) -> None:
        known = set(registry.actors())
        namespace = self.make_namespace(block.page)
        try:
            block.run_in(namespace)
            for case in make_cases(namespace) if block.is_test else ():
                self.run_case(case)
        finally:
            for name in set(registry.actors()) - known:
                registry.remove(name)

    def make_namespace(self, page: Path) -> dict[str, Any]:
        """Return what an example may take for granted: imports, and what the page declares."""
        namespace: dict[str, Any] = {
            "__name__": "examples",
            "__file__": str(page),
            "BrokerUnavailable": BrokerUnavailable,
            "Path": Path,
            "TestCase": TestCase,
            "TransactionTestCase": TransactionTestCase,
            "Worker": Worker,
            "count_words": count_words,
            "get_broker": get_broker,
            "greet": actor(greet),
            "mock": mock,
            "pytest": pytest,
            "timedelta": datetime.timedelta,
            "transaction": transaction,
        }
        namespace |= {
            name: getattr(django_actors.test, name) for name in django_actors.test.__all__
        }
        for block in read_blocks(page):
            if not block.is_test:
                block.run_in(namespace)
        return namespace

    def run_case(self, case: type[unittest.TestCase]) -> None:
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        output = io.StringIO()
        result = unittest.TextTestRunner(output).run(suite)
        self.assertEqual((result.testsRun, result.wasSuccessful()), (1, True), output.getvalue())


def make_cases(namespace: dict[str, Any]) -> Iterator[type[unittest.TestCase]]:
    """Return the test cases of an example; its functions become methods of one."""
    for name, value in list(namespace.items()):
        if isinstance(value, type) and value.__module__ == "examples" and hasattr(value, "run"):
            if unittest.defaultTestLoader.getTestCaseNames(value):
                yield value
        elif name.startswith("test_"):
            yield type("Example", (TestCase,), {name: as_method(value)})


def as_method(function: Any) -> Any:
    if function.__code__.co_varnames[:1] == ("self",):
        return function
    return lambda self: function(django_actors.test.Actors())


class ExampleTests(ExamplesCase):
    def test_every_example_runs(self):
        self.run_examples(processes=False)

    def test_the_examples_are_found(self):
        self.assertGreater(sum(block.is_test for block in BLOCKS), 20)

    def test_no_example_is_longer_than_eight_lines(self):
        long = [str(block) for block in BLOCKS if len(block.code.splitlines()) > LONGEST]

        self.assertEqual(long, [])

    def test_every_helper_has_an_example(self):
        text = "\n".join(block.code for block in BLOCKS)
        # What the helpers return and raise needs none.
        unused = {"Actors", "RealWorker", "Result", "Outcome", "EndlessChain", "VirtualClock"}

        missing = [
            name
            for name in django_actors.test.__all__
            if name not in unused and not re.search(rf"\b{name}\b", text)
        ]

        self.assertEqual(missing, [])


@tag("processes")
class ProcessExampleTests(ExamplesCase):
    def test_every_example_with_processes_runs(self):
        self.run_examples(processes=True)
