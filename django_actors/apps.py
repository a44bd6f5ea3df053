"""
The Django app: finds every app's actors, in every process.
"""

from __future__ import annotations

import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule


class DjangoActorsConfig(AppConfig):
    """Registers the checks and imports the modules in which apps keep their actors."""

    name = "django_actors"
    label = "django_actors"
    verbose_name = "Actors"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, isolation
        from .conf import settings
        from .registry import registry

        checks.register()
        try:
            names = settings.AUTODISCOVER
        except (AttributeError, TypeError):
            # The settings are wrong. Django runs the checks after this, and they say how.
            names = []
        with _exit_code_of_runactors():
            for name in names:
                autodiscover(name)
            registry.resolve()
        if isolation.is_test_process():
            import_module("django_actors.test")


@contextmanager
def _exit_code_of_runactors() -> Iterator[None]:
    # The command itself is not reached when an app's module cannot be imported, and a
    # service manager reads its exit code: 2 is what no restart will mend.
    try:
        yield
    except Exception:
        if sys.argv[1:2] != ["runactors"]:
            raise
        traceback.print_exc()
        raise SystemExit(2) from None


def autodiscover(name: str) -> None:
    """
    Import the module or package *name* of every installed app, with all its submodules.

    Raises:
        Exception: whatever such a module raises. Nothing is hidden: an actor that is not
            imported would be a message that nobody can run.
    """
    for config in apps.get_app_configs():
        if config.module is not None and module_has_submodule(config.module, name):
            _import_with_submodules(import_module(f"{config.name}.{name}"))


def _import_with_submodules(module: ModuleType) -> None:
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
        import_module(info.name)
