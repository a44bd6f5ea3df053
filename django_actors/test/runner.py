"""
Django's test runner with the stub broker in place.
"""

from __future__ import annotations

from typing import Any

from django.test.runner import DiscoverRunner

from django_actors import isolation


class ActorsRunnerMixin:
    """
    For projects with a test runner of their own: ``class Runner(ActorsRunnerMixin, Theirs)``.

    It only does early what the engine would do at the first test: it puts the stub in the
    place of whatever broker was asked for while the project was imported.
    """

    def setup_test_environment(self, **kwargs: Any) -> None:
        super().setup_test_environment(**kwargs)  # type: ignore[misc]
        isolation.install()
        isolation.begin_test()


class ActorsTestRunner(ActorsRunnerMixin, DiscoverRunner):
    """``TEST_RUNNER = "django_actors.test.ActorsTestRunner"``."""
