"""
The settings: one dict, ``DJANGO_ACTORS``, read on access.

Nothing is copied at import, and what was read is forgotten when Django has another dict,
so ``override_settings`` simply works. Wrong values are found by the system checks, which
use the same ``clean`` functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from .clock import duration_to_ms

SETTING_NAME = "DJANGO_ACTORS"

DEFAULT_MIDDLEWARE = [
    "django_actors.middleware.AgeLimit",
    "django_actors.middleware.TimeLimit",
    "django_actors.middleware.ShutdownNotifications",
    "django_actors.middleware.Callbacks",
    "django_actors.middleware.Retries",
    "django_actors.middleware.DbConnections",
    "django_actors.middleware.CurrentMessage",
]

DAY_MS = 86_400_000

_NAMESPACE = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a text, not {value!r}.")
    return value


def _namespace(name: str, value: object) -> str:
    text = _text(name, value)
    if not _NAMESPACE.fullmatch(text):
        raise ValueError(
            f"{name} must be letters, digits, '.', '_' and '-', 64 at most, not {value!r}."
        )
    return text


def _positive(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TypeError(f"{name} must be an integer from 1, not {value!r}.")
    return value


def _duration(name: str, value: object) -> int:
    return duration_to_ms(cast(int, value), name=name)


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{name} must be a list of texts, not {value!r}.")
    return list(value)


def _options(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must be a dict of actor options, not {value!r}.")
    return dict(value)


_BROKER_KEYS = {"BACKEND": str, "URL": str, "OPTIONS": Mapping}


def _broker(name: str, value: object) -> object:
    if isinstance(value, str) and value:
        return value
    # What is wrong is not shown: it may be a URL with a password.
    if not isinstance(value, Mapping) or not (value.get("BACKEND") or value.get("URL")):
        raise TypeError(
            f"{name} must be a URL or a dict with 'BACKEND' (a dotted path) or 'URL', not "
            f"{type(value).__name__}."
        )
    for key in value:
        if key not in _BROKER_KEYS:
            raise ValueError(f"{name} has the key {key!r}; there are 'BACKEND', 'URL', 'OPTIONS'.")
        if not isinstance(value[key], _BROKER_KEYS[key]):
            raise TypeError(f"{name}[{key!r}] must not be a {type(value[key]).__name__}.")
    return value


def _middleware(name: str, value: object) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of dotted paths, not {value!r}.")
    for entry in value:
        pair = isinstance(entry, (list, tuple)) and len(entry) == 2
        if not isinstance(entry, str) and not (
            pair and isinstance(entry[0], str) and isinstance(entry[1], Mapping)
        ):
            raise TypeError(
                f"{name} holds {entry!r}, which is neither a dotted path nor a pair "
                "of a dotted path and a dict of its arguments."
            )
    return list(value)


def _one_of(*choices: str) -> Callable[[str, object], str]:
    def clean(name: str, value: object) -> str:
        if value not in choices:
            named = ", ".join(map(repr, choices))
            raise ValueError(f"{name} must be one of {named}, not {value!r}.")
        return str(value)

    return clean


class Setting(NamedTuple):
    """The default of a setting, and the function that checks and converts its value."""

    default: object
    clean: Callable[[str, object], Any]


SETTINGS: dict[str, Setting] = {
    "BROKER": Setting("database://default", _broker),
    "DATABASE": Setting("default", _text),
    "MIDDLEWARE": Setting(DEFAULT_MIDDLEWARE, _middleware),
    "ACTOR_OPTIONS": Setting({}, _options),
    "AUTODISCOVER": Setting(["tasks"], _texts),
    "ON_TRANSACTION": Setting("outbox", _one_of("outbox", "on_commit", "ignore")),
    "DEAD_LETTER_TTL": Setting(timedelta(days=7), _duration),
    "ATTEMPT_TTL": Setting(timedelta(days=14), _duration),
    "STATISTICS_TTL": Setting(timedelta(days=7), _duration),
    "NAMESPACE": Setting("django_actors", _namespace),
    "CRASH_LIMIT": Setting(3, _positive),
    "TIME_LIMIT_GRACE": Setting(timedelta(seconds=5), _duration),
    "UNKNOWN_ACTOR_GRACE": Setting(timedelta(minutes=15), _duration),
    "MAX_MESSAGE_SIZE": Setting(1_048_576, _positive),
    "SIGNING": Setting("off", _one_of("off", "sign", "require")),
    "TEST_FORGOTTEN": Setting("ignore", _one_of("ignore", "error")),
}


# What a project has that leaves the setting out.
_NOTHING: Mapping[str, Any] = {}

_asked_for: dict[str, Any] = vars(django_settings)


class Settings:
    """
    The settings of this package; durations are milliseconds whatever was written.

    Each of them raises ``ImproperlyConfigured`` where the project wrote what it cannot be.
    What was checked once is kept until Django has another dict.
    """

    def __init__(self) -> None:
        self._kept: tuple[object, dict[str, Any]] = (_NOTHING, {})

    def _get(self, name: str) -> Any:
        given, values = self._kept
        # Django's own memory of the settings it was asked for; it forgets what is replaced.
        if _asked_for.get(SETTING_NAME) is not given:
            given, values = self._renew()
        try:
            return values[name]
        except KeyError:
            value = values[name] = self._read(name, given)
            return value

    def _renew(self) -> tuple[object, dict[str, Any]]:
        """Return the dict that the project has now, and what was read of it."""
        kept, given = self._kept, getattr(django_settings, SETTING_NAME, _NOTHING)
        # Django does not remember that a setting is not there, and would be asked for each
        # message. It forgets this too as soon as there is one.
        _asked_for.setdefault(SETTING_NAME, given)
        if kept[0] is not given:
            # One assignment: a thread that reads the pair sees both of it.
            kept = self._kept = (given, {})
        return kept

    @staticmethod
    def _read(name: str, given: object) -> Any:
        setting = SETTINGS[name]
        if not isinstance(given, Mapping):
            raise ImproperlyConfigured(
                f"{SETTING_NAME} must be a dict, not {type(given).__name__}."
            )
        try:
            return setting.clean(name, given.get(name, setting.default))
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"{SETTING_NAME}: {error}") from None

    @property
    def BROKER(self) -> str | Mapping[str, Any]:
        """Where ready messages travel: a URL, or a dict with ``BACKEND`` or ``URL``."""
        return cast("str | Mapping[str, Any]", self._get("BROKER"))

    @property
    def DATABASE(self) -> str:
        """The database alias that holds the waiting room."""
        return cast(str, self._get("DATABASE"))

    @property
    def MIDDLEWARE(self) -> Sequence[Any]:
        """Dotted paths, or pairs of a dotted path and a dict of arguments, in order."""
        return list(self._get("MIDDLEWARE"))

    @property
    def ACTOR_OPTIONS(self) -> dict[str, Any]:
        """Defaults of actor options for the whole project."""
        return dict(self._get("ACTOR_OPTIONS"))

    @property
    def AUTODISCOVER(self) -> list[str]:
        """Names of the modules in which each app keeps its actors."""
        return list(self._get("AUTODISCOVER"))

    @property
    def ON_TRANSACTION(self) -> str:
        """What ``send()`` does inside ``atomic()``: outbox, on_commit or ignore."""
        return cast(str, self._get("ON_TRANSACTION"))

    @property
    def DEAD_LETTER_TTL(self) -> int:
        """Milliseconds after which a dead letter is pruned."""
        return cast(int, self._get("DEAD_LETTER_TTL"))

    @property
    def ATTEMPT_TTL(self) -> int:
        """Milliseconds after which attempts of failed messages and error groups are pruned."""
        return cast(int, self._get("ATTEMPT_TTL"))

    @property
    def STATISTICS_TTL(self) -> int:
        """Milliseconds for which the hourly counts of actors are kept."""
        return cast(int, self._get("STATISTICS_TTL"))

    @property
    def NAMESPACE(self) -> str:
        """Prefix of every name the engine uses on a shared server."""
        return cast(str, self._get("NAMESPACE"))

    @property
    def CRASH_LIMIT(self) -> int:
        """How many worker processes a message may end before it is a dead letter."""
        return cast(int, self._get("CRASH_LIMIT"))

    @property
    def TIME_LIMIT_GRACE(self) -> int:
        """Milliseconds from ``TimeLimitExceeded`` to replacing a stuck process."""
        return cast(int, self._get("TIME_LIMIT_GRACE"))

    @property
    def UNKNOWN_ACTOR_GRACE(self) -> int:
        """Milliseconds for which a message for a missing actor is put back."""
        return cast(int, self._get("UNKNOWN_ACTOR_GRACE"))

    @property
    def MAX_MESSAGE_SIZE(self) -> int:
        """Bytes of the largest message ``send()`` takes."""
        return cast(int, self._get("MAX_MESSAGE_SIZE"))

    @property
    def SIGNING(self) -> str:
        """Whether messages are signed, and unsigned ones are refused: off, sign, require."""
        return cast(str, self._get("SIGNING"))

    @property
    def TEST_FORGOTTEN(self) -> str:
        """What a test is that sends a message and neither runs nor looks at it: ignore, error."""
        return cast(str, self._get("TEST_FORGOTTEN"))


settings = Settings()
