"""
Where one test ends and the next one begins.

Django's runner does not say so, and a runner of one's own does not reach the processes of
``test --parallel`` under spawn. So Django's test case is asked: every runner, pytest-django
included, calls it. Nothing here is called where no test runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.core import mail

# Called before each test, and before each class of tests; with nothing to give back.
at_start: list[Callable[[], None]] = []

# Called at the end of each test; what they raise is the test's failure.
at_end: list[Callable[[], None]] = []

_TROUBLES = ("addError", "addFailure", "addSkip", "addSubTest")

_installed = False
_declared = False


def is_in_test() -> bool:
    """
    Return whether a test runner has set Django up for tests.

    Django's own mark is asked, the mailbox it puts in place, because it is there in
    the processes of every runner: spawned test workers and pytest-django as well.
    """
    return _declared or hasattr(mail, "outbox")


def declare_tests() -> None:
    """Say that this process runs tests and nothing else, before any mark of Django's is there."""
    global _declared
    _declared = True
    begin_test()


def begin_test() -> None:
    """Have each test start empty; calling it again does nothing that matters."""
    for start in at_start:
        start()


def end_test() -> None:
    """
    Look at what a test has left.

    Raises:
        AssertionError: something that the project wants to be an error.
    """
    for end in at_end:
        end()


def is_test_process() -> bool:
    """Return whether this process was started for tests, before Django is set up for them."""
    # The processes of `test --parallel` begin in a function of Django's test runner.
    return "django.test.runner" in sys.modules or sys.argv[1:2] == ["test"]


def install() -> None:
    """Have Django's test cases tell when they begin and end."""
    global _installed
    if _installed:
        return
    _installed = True
    from django.test import SimpleTestCase

    case: Any = SimpleTestCase
    case.setUpClass = _after_start(case.__dict__["setUpClass"].__func__)
    case._pre_setup = _after_start(case.__dict__["_pre_setup"].__func__)
    case.__call__ = _around(case.__call__)


def _after_start(original: Callable[[Any], None]) -> Any:
    def wrapped(cls: Any) -> None:
        begin_test()
        original(cls)

    wrapped.__doc__ = original.__doc__
    return classmethod(wrapped)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Any, result: Any = None) -> Any:
        # Also here: what a TransactionTestCase sends in setUpClass comes after _pre_setup.
        begin_test()
        # Added first, so it runs last, and before the transaction of the test is rolled back.
        self.addCleanup(_end, result, _count_troubles(result))
        return original(self, result)

    wrapped.__doc__ = original.__doc__
    return wrapped


def _end(result: Any, troubles_before: int) -> None:
    # One failure is enough, and a test that was skipped half-way has not forgotten anything.
    if _count_troubles(result) == troubles_before:
        end_test()


def _count_troubles(result: Any) -> int:
    """Return how often a test has failed or was skipped so far."""
    events = getattr(result, "events", None)
    if events is not None:
        # In a process of `test --parallel`, whose result only sends its events home.
        return sum(event[0] in _TROUBLES for event in events)
    return sum(len(getattr(result, kind, ())) for kind in ("errors", "failures", "skipped"))
