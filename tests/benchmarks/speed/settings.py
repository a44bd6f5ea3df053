"""The Django settings of the contenders that live in a Django project."""

import os

import environ

ENGINE = os.environ.get("BENCHMARK_ENGINE", "")

SECRET_KEY = "for the benchmark only"
DEBUG = False
USE_TZ = True
ENGINES = "tests.benchmarks.speed.engines"
# What `startproject` puts there: without it nobody but those who have models of their own would
# load the ORM and the driver of the database, which no project is without.
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *{
        "with_actors": ["django_actors"],
        "with_tasks_db": ["django_tasks_db"],
        "with_ox": ["django_ox"],
        "with_procrastinate": ["procrastinate.contrib.django"],
    }.get(ENGINE, []),
    ENGINES,
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "tests.benchmarks.speed.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_database = environ.Env.db_url_config(os.environ.get("BENCHMARK_DATABASE", "sqlite://:memory:"))
if _database["ENGINE"].endswith("sqlite3"):
    _database["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }
else:
    # What each of them recommends: a worker keeps its connections.
    _database["CONN_MAX_AGE"] = None
DATABASES = {"default": _database}

DJANGO_ACTORS = {
    "BROKER": os.environ.get("BENCHMARK_BROKER", "database://default"),
    "AUTODISCOVER": ["with_actors"],
    "NAMESPACE": "benchmark",
}
PROCRASTINATE_AUTODISCOVER_MODULE_NAME = "with_procrastinate"
TASKS = {
    "default": {
        "BACKEND": {
            "with_tasks_db": "django_tasks_db.DatabaseBackend",
            "with_ox": "django_ox.backend.OxBackend",
        }.get(ENGINE, "django.tasks.backends.dummy.DummyBackend")
    }
}
