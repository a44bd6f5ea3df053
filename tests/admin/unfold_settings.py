"""The test project in the dress of django-unfold; see test_themes.py."""

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]

# No worker process wants to open it.
DATABASES["default"]["TEST"] = {"NAME": ":memory:"}
