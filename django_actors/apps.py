"""
The Django app: finds every app's actors, in every process.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import module_has_submodule

from . import garbage

# Files whose frames say nothing about a mistake in a module of actors.
_NOT_THEIRS = ("<frozen ", os.path.dirname(__file__), os.path.dirname(importlib.__file__))


class DjangoActorsConfig(AppConfig):
    """Registers the checks and imports the modules in which apps keep their actors."""

    name = "django_actors"
    label = "django_actors"
    verbose_name = "Actors"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, app_name: str, app_module: ModuleType) -> None:
        super().__init__(app_name, app_module)
        if _is_runactors():
            # The command lets it go on; most of the project is imported until then.
            garbage.rest()

    def ready(self) -> None:
        from . import checks, isolation
        from .conf import settings
        from .registry import registry

        checks.register()
        try:
            names = settings.AUTODISCOVER
        except ImproperlyConfigured:
            # The settings are wrong. Django runs the checks after this, and they say how.
            names = []
        with _exit_code_of_runactors():
            for name in names:
                autodiscover(name)
            registry.resolve()
        if isolation.is_test_process():
            import_module("django_actors.test")


def _is_runactors() -> bool:
    return sys.argv[1:2] == ["runactors"]


@contextmanager
def _exit_code_of_runactors() -> Iterator[None]:
    # The command itself is not reached when an app's module cannot be imported, and a
    # service manager reads its exit code: 2 is what no restart will mend.
    try:
        yield
    except Exception as error:
        if not _is_runactors():
            raise
        sys.stderr.write(_format_own_frames(error))
        raise SystemExit(2) from None


def _format_own_frames(error: Exception) -> str:
    """Return the traceback of *error* from where the project's own modules begin."""
    told = traceback.TracebackException.from_exception(error)
    ways_in = [n for n, frame in enumerate(told.stack) if frame.filename == __file__]
    theirs = [
        frame
        for frame in told.stack[max(ways_in, default=-1) + 1 :]
        if not frame.filename.startswith(_NOT_THEIRS)
    ]
    told.stack = traceback.StackSummary.from_list(theirs)
    return "".join(told.format())


def autodiscover(name: str) -> None:
    """
    Import the module or package *name* of every installed app, with all its submodules.

    Raises:
        Exception: whatever such a module raises. Nothing is hidden: an actor that is not
            imported would be a message that nobody can run.
    """
    for config in apps.get_app_configs():
        if config.module is not None and module_has_submodule(config.module, name):
            try:
                _import_with_submodules(import_module(f"{config.name}.{name}"))
            except Exception as error:
                error.add_note(
                    f"This was found while the actors of the app {config.label!r} were looked "
                    f"for in {config.name}.{name}."
                )
                raise


def _import_with_submodules(module: ModuleType) -> None:
    for info in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
        import_module(info.name)
