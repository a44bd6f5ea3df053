"""
Which broker this process uses: the one that was set, else the one of the settings.

Adapters are siblings in this folder and never import each other. Nothing is imported
here before it is used: a module of actors may be imported before Django has its models.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_actors.conf import SETTING_NAME, settings
from django_actors.isolation import at_start, is_in_test
from django_actors.middleware.base import Middleware, build_middleware
from django_actors.registry import nearest

if TYPE_CHECKING:
    from .base import Broker

STUB = "django_actors.brokers.stub.StubBroker"
RABBITMQ = "django_actors.brokers.rabbitmq.RabbitmqBroker"
REDIS = "django_actors.brokers.redis.RedisBroker"

SCHEMES = {
    "database": "django_actors.brokers.database.DatabaseBroker",
    "stub": STUB,
    "redis": REDIS,
    "rediss": REDIS,
    "redis+sentinel": REDIS,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
}

_lock = threading.RLock()
_chosen: Broker | None = None
_configured: Broker | None = None
# Whose place the configured one takes; only settings that change leave one.
_former: Broker | None = None


def get_broker() -> Broker:
    """
    Return the broker of this process.

    That is the one given to ``set_broker()``; else a stub in a test; else the one
    that the setting ``BROKER`` describes, built at the first call.

    Raises:
        ImproperlyConfigured: the setting describes no broker.
    """
    return _chosen or _configured or _configure()


def set_broker(broker: Broker | None) -> None:
    """Use *broker* in this process from now on; with ``None`` the settings decide again."""
    global _chosen
    with _lock:
        _chosen = broker


def _configure() -> Broker:
    global _configured
    with _lock:
        if _configured is None:
            _configured = build_broker(STUB_URL if is_in_test() else settings.BROKER)
            _hand_down(_configured)
        return _configured


STUB_URL = "stub://"


def build_broker(setting: str | Mapping[str, Any]) -> Broker:
    """
    Build the broker that a value of the setting ``BROKER`` describes.

    Raises:
        ImproperlyConfigured: it describes none.
    """
    if apps.apps_ready and not apps.is_installed("django_actors"):
        raise ImproperlyConfigured(
            "'django_actors' is not in INSTALLED_APPS, so it has no tables to keep messages in. "
            "Add it there, and run manage.py migrate."
        )
    if isinstance(setting, str):
        setting = {"URL": setting}
    url = setting.get("URL")
    path = setting.get("BACKEND") or backend_of(url or "")
    options = dict(setting.get("OPTIONS", {}))
    if url:
        options["url"] = url
    try:
        broker = import_string(path)(**options)
    except (ImportError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"DJANGO_ACTORS['BROKER'] describes no broker: {error}"
        ) from error
    if not hasattr(broker, "enqueue_many"):
        raise ImproperlyConfigured(f"{path} is no subclass of django_actors.Broker.")
    return cast("Broker", broker)


def backend_of(url: str) -> str:
    """
    Return the dotted path of the broker for the scheme of *url*.

    Raises:
        ImproperlyConfigured: no broker has this scheme. The URL itself is not named:
            it may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ImproperlyConfigured(
            "DJANGO_ACTORS['BROKER'] is no URL: it has no scheme, such as 'database://'."
        )
    try:
        return SCHEMES[scheme]
    except KeyError:
        raise ImproperlyConfigured(
            f"DJANGO_ACTORS['BROKER'] has the scheme {scheme!r}, which no broker has."
            f"{nearest(scheme, SCHEMES)} There are: {', '.join(SCHEMES)}."
        ) from None


def current_middleware() -> Sequence[Middleware]:
    """Return the middleware of today's broker, or what the settings name if there is none yet."""
    broker = _chosen or _configured
    return broker.middleware if broker else build_middleware()


def _forget_configured(*, setting: str, **kwargs: Any) -> None:
    global _configured, _former
    if setting != SETTING_NAME:
        return
    with _lock:
        old, _configured = _configured, None
        _former = old or _former
    if old is not None:
        old.close()


def _hand_down(broker: Broker) -> None:
    """Give a stub what the one before it holds: settings may change in the middle of a test."""
    inherit = getattr(broker, "inherit", None)
    if inherit is not None and _former is not None:
        inherit(_former)


def _put_stub_in_place() -> None:
    """Replace a broker that was asked for before the tests began, in some app's ``ready()``."""
    global _configured
    with _lock:
        if _configured is None or not is_in_test() or hasattr(_configured, "inherit"):
            return
        old = _configured
        # Instances that the project has added are not in the settings.
        _configured = import_string(STUB)(middleware=old.middleware)
    old.close()


setting_changed.connect(_forget_configured)
at_start.append(_put_stub_in_place)
