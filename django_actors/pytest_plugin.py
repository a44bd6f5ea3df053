"""
The pytest plugin: each test starts empty, and has the fixture ``actors``.

It is loaded in every run of pytest where the package is installed, so it asks whether there is
a Django project at all.
"""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps

from . import isolation

if TYPE_CHECKING:
    from .test import Actors


@pytest.fixture
def actors() -> Actors:
    """What was sent in this test, and how to run it: ``actors.run()``, ``actors.sent()``."""
    from .test import Actors

    return Actors()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: Any) -> None:
    """Have the stub in place before the first fixture, where there is a Django project."""
    if apps.ready:
        import_module("django_actors.test")
        isolation.declare_tests()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Have each test start empty, also one that is a plain function."""
    isolation.begin_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Generator[None, None, None]:
    """Look at what a test has left, before its transaction is rolled back."""
    yield
    if isolation.is_in_test():
        isolation.end_test()
