"""
System checks: one small function each, so that wrong settings are found by ``manage.py check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import INFO, WARNING, CheckMessage, Error, Tags, Warning
from django.core.checks import register as register_check
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from .brokers import STUB, backend_of, build_broker
from .claims import tables_of_few_characters
from .conf import SETTING_NAME, SETTINGS, settings
from .isolation import is_in_test
from .middleware.base import build_middleware
from .middleware.callbacks import clean_target
from .options import known_options
from .registry import nearest, registry

CALLBACK_OPTIONS = ("on_success", "on_failure", "on_retry_exhausted")


def _given() -> Any:
    return getattr(django_settings, SETTING_NAME, {})


def _advice(name: object, known: Iterable[str]) -> str:
    """Return which of *known* was meant, or all of them."""
    names = sorted(known)
    return nearest(str(name), names).strip() or f"There are: {', '.join(names) or 'none'}."


def check_is_dict() -> Iterator[CheckMessage]:
    """The setting is a dict."""
    if not isinstance(_given(), Mapping):
        yield Error(
            f"{SETTING_NAME} must be a dict, not {type(_given()).__name__}.",
            hint='Write DJANGO_ACTORS = {"BROKER": "database://default"}.',
            id="django_actors.E001",
        )


def check_keys() -> Iterator[CheckMessage]:
    """Every key is one we know."""
    for key in _given():
        if key not in SETTINGS:
            yield Error(
                f"{SETTING_NAME} has no setting {key!r}.",
                hint=_advice(key, SETTINGS),
                id="django_actors.E002",
            )


def check_values() -> Iterator[CheckMessage]:
    """Every value has the type and range it must have."""
    for key, value in _given().items():
        setting = SETTINGS.get(key)
        if setting is None:
            continue
        try:
            setting.clean(key, value)
        except (TypeError, ValueError) as error:
            yield Error(
                f"{SETTING_NAME}: {error}",
                hint=f"The default is {setting.default!r}.",
                id="django_actors.E003",
            )


def check_databases() -> Iterator[CheckMessage]:
    """The waiting room's database is one of DATABASES."""
    if settings.DATABASE not in connections.settings:
        yield Error(
            f"{SETTING_NAME}['DATABASE'] is {settings.DATABASE!r}, which DATABASES has not.",
            hint=_advice(settings.DATABASE, connections.settings),
            id="django_actors.E004",
        )


def check_broker() -> Iterator[CheckMessage]:
    """The broker's URL has a scheme and, for the database, an alias that exist."""
    value = settings.BROKER
    url = value if isinstance(value, str) else value.get("URL", "")
    if not isinstance(value, str) and value.get("BACKEND"):
        yield from _check_backend(value["BACKEND"])
        return
    try:
        backend_of(url)
    except ImproperlyConfigured as error:
        yield Error(
            str(error),
            hint='Without a server of its own: "BROKER": "database://default".',
            id="django_actors.E005",
        )
        return
    alias = url.partition("://")[2] or "default"
    if url.startswith("database:") and alias not in connections.settings:
        # Shown only if it can be an alias: it may be the URL of a server, with a password.
        shown = repr(alias) if alias.isidentifier() else "(not shown)"
        yield Error(
            f"{SETTING_NAME}['BROKER'] names the database {shown}, which DATABASES has not.",
            hint=_advice(alias, connections.settings),
            id="django_actors.E006",
        )


def _check_backend(path: str) -> Iterator[CheckMessage]:
    try:
        import_string(path)
    except ImportError as error:
        yield Error(
            f"{SETTING_NAME}['BROKER'] has the BACKEND {path!r}, which cannot be imported: {error}",
            hint="BACKEND is the dotted path of a subclass of django_actors.Broker.",
            id="django_actors.E011",
        )


def check_buildable() -> Iterator[CheckMessage]:
    """The broker takes what its URL and its options say; it asks no server for that."""
    try:
        build_broker(settings.BROKER).close()
    except ImproperlyConfigured as error:
        yield Error(
            str(error),
            hint=f"Correct {SETTING_NAME}['BROKER']; the reference has a page on each broker.",
            id="django_actors.E101",
        )


def check_middleware() -> Iterator[CheckMessage]:
    """Every middleware can be built."""
    for entry in settings.MIDDLEWARE:
        try:
            build_middleware([entry])
        except Exception as error:
            yield Error(
                f"{SETTING_NAME}['MIDDLEWARE'] holds {entry!r}, which cannot be built: {error}",
                hint="Write the dotted path of a class, or (path, {its arguments}).",
                id="django_actors.E007",
            )


def check_actor_options() -> Iterator[CheckMessage]:
    """The project-wide actor options are ones the middleware knows, with values it takes."""
    known = {name: each for name, each in known_options(build_middleware()).items() if each}
    for name, value in settings.ACTOR_OPTIONS.items():
        middleware = known.get(name)
        if middleware is None:
            yield Error(
                f"{SETTING_NAME}['ACTOR_OPTIONS'] has the option {name!r}, which no installed "
                "middleware knows.",
                hint=_advice(name, known),
                id="django_actors.E008",
            )
            continue
        try:
            middleware.clean_option(name, value)
        except (TypeError, ValueError) as error:
            yield Error(
                f"{SETTING_NAME}['ACTOR_OPTIONS']: {error}",
                hint=f"It is what every actor has that does not say {name}= itself.",
                id="django_actors.E009",
            )


def check_callbacks() -> Iterator[CheckMessage]:
    """The actors that other actors send to when they end exist."""
    actors = registry.actors()
    for name, actor in actors.items():
        for option in CALLBACK_OPTIONS:
            target = actor.options.get(option)
            if target is not None and target not in actors:
                yield Error(
                    f"Actor {name!r} has {option}={target!r}, but there is no such actor.",
                    hint=_advice(target, actors),
                    id="django_actors.E010",
                )


def check_project_callbacks() -> Iterator[CheckMessage]:
    """The actors that every actor sends to exist, and do not send to themselves."""
    actors = registry.actors()
    for option in CALLBACK_OPTIONS:
        target = clean_target(option, settings.ACTOR_OPTIONS.get(option))
        if target is None:
            continue
        if target not in actors:
            yield Error(
                f"{SETTING_NAME}['ACTOR_OPTIONS'] has {option}={target!r}, but there is no such "
                "actor.",
                hint=_advice(target, actors),
                id="django_actors.E012",
            )
        elif _comes_back(option, target):
            yield Error(
                f"{SETTING_NAME}['ACTOR_OPTIONS'] has {option}={target!r} for every actor, that "
                "one included: its messages would follow each other for ever.",
                hint=f"Write @actor({option}=None) on {target!r}.",
                id="django_actors.E013",
            )


def _comes_back(option: str, name: str | None) -> bool:
    """Whether following *option* from actor to actor has no end."""
    actors, default = registry.actors(), settings.ACTOR_OPTIONS.get(option)
    seen: set[str] = set()
    while name in actors and name not in seen:
        seen.add(name)
        name = clean_target(option, actors[name].options.get(option, default))
    return name in seen


def check_stub() -> Iterator[CheckMessage]:
    """The broker of tests is not that of the project."""
    if not is_in_test() and _backend_path() == STUB:
        yield Warning(
            f"{SETTING_NAME}['BROKER'] is the stub, which keeps messages in the memory of the "
            "process that sends them: no worker ever sees one.",
            hint=(
                'Leave BROKER out, or set it to "database://default", redis:// or amqp://. '
                "Tests use the stub without being told."
            ),
            id="django_actors.W002",
        )


def check_leftovers() -> Iterator[CheckMessage]:
    """No settings of another package are left that look as if they did something."""
    names = [name for name in dir(django_settings) if name.startswith("DRAMATIQ_")]
    if names and not apps.is_installed("django_dramatiq"):
        yield Warning(
            f"The settings have {', '.join(sorted(names))}, which django_actors does not read.",
            hint=f"Say it in {SETTING_NAME}, and delete them; tests need no settings at all.",
            id="django_actors.W003",
        )


def _backend_path() -> str:
    value = settings.BROKER
    if not isinstance(value, str) and value.get("BACKEND"):
        return str(value["BACKEND"])
    return backend_of(value if isinstance(value, str) else value["URL"])


def check_character_sets(aliases: Iterable[str]) -> Iterator[CheckMessage]:
    """The tables on MySQL and MariaDB take every character."""
    for alias in sorted(set(aliases) & _used_aliases()):
        connection = connections[alias]
        if connection.vendor != "mysql":
            continue
        if tables := tables_of_few_characters(connection):
            yield Warning(
                f"In the database {alias!r} these tables do not take every character, an emoji "
                f"for one: {', '.join(tables)}.",
                hint="Run for each: ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4;",
                id="django_actors.W004",
            )


def check_sqlite() -> Iterator[CheckMessage]:
    """SQLite is set up for several writers."""
    for alias in sorted(_used_aliases()):
        configuration = connections.settings.get(alias, {})
        if not str(configuration.get("ENGINE", "")).endswith("sqlite3"):
            continue
        if configuration.get("OPTIONS", {}).get("transaction_mode") is None:
            yield Warning(
                f"Workers write to the SQLite database {alias!r}, whose transactions may fail "
                "with 'database is locked'.",
                hint=(
                    "Set its OPTIONS to {'transaction_mode': 'IMMEDIATE', 'init_command': "
                    "'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;'}."
                ),
                id="django_actors.W001",
            )


def check_signing() -> Iterator[CheckMessage]:
    """Who signs does so for good."""
    if settings.SIGNING == "sign":
        yield Warning(
            f"{SETTING_NAME}['SIGNING'] is 'sign': messages are signed, but workers still run "
            "those without a signature.",
            hint="Set it to 'require' when every process signs and no older message is left.",
            id="django_actors.W005",
        )


def check_broker_server() -> Iterator[CheckMessage]:
    """The server of the broker is safe to leave messages with."""
    with closing(build_broker(settings.BROKER)) as broker:
        for concern in broker.concerns():
            level = INFO if concern.id.startswith("I") else WARNING
            number = f"django_actors.{concern.id}"
            yield CheckMessage(level, concern.text, hint=concern.hint, id=number)


def _used_aliases() -> set[str]:
    aliases = {settings.DATABASE}
    if isinstance(settings.BROKER, str) and settings.BROKER.startswith("database:"):
        aliases.add(settings.BROKER.partition("://")[2] or "default")
    return aliases


# Each group is run only if those before it found nothing: later ones read what they check.
_GROUPS: tuple[tuple[Callable[[], Iterator[CheckMessage]], ...], ...] = (
    (check_is_dict,),
    (check_keys, check_values),
    (check_databases, check_broker, check_middleware),
    (check_buildable, check_actor_options, check_callbacks),
    (check_project_callbacks, check_stub, check_leftovers),
)

_DEPLOY = (check_sqlite, check_signing, check_broker_server)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Run the checks of every group up to the first that finds something."""
    for group in _GROUPS:
        if found := [message for check in group for message in check()]:
            return found
    return []


def check_deploy(**kwargs: Any) -> list[CheckMessage]:
    """Run what matters only where the project really runs."""
    if any(found.is_serious() for found in check_settings()):
        return []
    return [message for check in _DEPLOY for message in check()]


def check_tables(*, databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Run what asks the databases: Django names those that it may ask."""
    if any(found.is_serious() for found in check_settings()):
        return []
    return list(check_character_sets(databases or ()))


def register() -> None:
    """Make the checks known to Django."""
    register_check(check_tables, Tags.database)
    register_check(check_settings, "django_actors")
    register_check(check_deploy, "django_actors", deploy=True)
