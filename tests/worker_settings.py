"""The settings of the worker processes that tests start: the test run's database as it is."""

from testproject.settings import *  # noqa: F403
from testproject.settings import DJANGO_ACTORS, INSTALLED_APPS, env

INSTALLED_APPS = [*INSTALLED_APPS, "tests.ledger"]
DEBUG = False
DJANGO_ACTORS = {**DJANGO_ACTORS, "TIME_LIMIT_GRACE": env.int("ACTORS_TEST_GRACE", default=5_000)}
