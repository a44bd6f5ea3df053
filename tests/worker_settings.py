"""The settings of the worker processes that tests start: the test run's database as it is."""

from django_actors.conf import DEFAULT_MIDDLEWARE
from testproject.settings import *  # noqa: F403
from testproject.settings import DJANGO_ACTORS, INSTALLED_APPS, env

INSTALLED_APPS = [*INSTALLED_APPS, "tests.ledger"]
DEBUG = False
_poison = env.str("ACTORS_TEST_POISON", default="")
_more = [("tests.ledger.poison.Poison", {"path": _poison})] if _poison else []
DJANGO_ACTORS = {**DJANGO_ACTORS, "TIME_LIMIT_GRACE": env.int("ACTORS_TEST_GRACE", default=5_000)}
DJANGO_ACTORS["MIDDLEWARE"] = [*DEFAULT_MIDDLEWARE, *_more]
