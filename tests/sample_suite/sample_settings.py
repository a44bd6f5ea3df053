"""The settings of a small project, with nothing in them that is only for tests."""

import os
from pathlib import Path

SECRET_KEY = "for these tests only"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_actors", "shop"]
ROOT_URLCONF = "shop.urls"
STATIC_URL = "static/"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db"}
}
DJANGO_ACTORS = {"BROKER": "database://default"}
if os.environ.get("SAMPLE_RUNNER"):
    TEST_RUNNER = os.environ["SAMPLE_RUNNER"]
