"""
``manage.py runactors``: start worker processes and keep them running.

The command reads its flags and asks whether work is possible at all (tables, broker,
pid file); everything after that is the supervisor's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    SystemCheckError,
)
from django.db import InterfaceError, OperationalError, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils.module_loading import import_string

from django_actors import __version__, garbage, logs
from django_actors.brokers import STUB, get_broker
from django_actors.checks import check_character_sets, check_sqlite
from django_actors.children import worker_command
from django_actors.claims import describe_trouble
from django_actors.conf import settings
from django_actors.crew import Limits
from django_actors.errors import BrokerUnavailable
from django_actors.isolation import is_in_test
from django_actors.pidfile import PidFileError, pid_file
from django_actors.process import forked_body
from django_actors.registry import nearest
from django_actors.start_reporter import StartReporter
from django_actors.supervisor import BROKER_UNREACHABLE, NOT_BOOTABLE, Supervisor
from django_actors.watch import Watcher

from ._flags import add_flags, explain, read_flags

logger = logging.getLogger("django_actors.MainProcess")

APP = "django_actors"
PID_FILE_TAKEN = 4
PATIENCE_S = 5.0
RETRY_S = 0.5
# From the end of the shutdown timeout to SIGKILL: time to give back what was interrupted,
# also when the broker does not answer at once.
STOP_MARGIN_S = 15.0


class Command(BaseCommand):
    help = "Run actors in worker processes, until SIGTERM or Ctrl-C. SIGHUP reloads the code."

    def add_arguments(self, parser: CommandParser) -> None:
        add_flags(parser)
        complain = parser.error
        # Django makes the parser itself, and argparse asks no other object.
        vars(parser)["error"] = lambda message: complain(explain(message))

    def check(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().check(*args, **kwargs)
        except SystemCheckError as error:
            error.returncode = NOT_BOOTABLE
            raise

    def handle(self, *args: Any, **options: Any) -> None:
        garbage.go_on()
        try:
            self.run(read_flags(options), options["verbosity"])
        except ImproperlyConfigured as error:
            raise CommandError(str(error), returncode=NOT_BOOTABLE) from error

    def run(self, flags: dict[str, Any], verbosity: int) -> None:
        logs.setup(verbosity)
        refuse_stub()
        with _held(flags["pid_file"]):
            logger.info("Django Actors %r is booting up.", __version__)
            until_it_answers(check_tables)
            until_it_answers(get_broker().ping)
            warn_of_unknown_queues(flags["queues"])
            until_it_answers(warn_of_databases)
            let_go()
            code = supervise(flags, verbosity)
        if code:
            sys.exit(code)


def until_it_answers(ask: Callable[[], object]) -> None:
    """
    Ask until there is an answer, for five seconds.

    Raises:
        CommandError: There was none; it exits with 3.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            ask()
            return
        except (BrokerUnavailable, OperationalError, InterfaceError) as error:
            if time.monotonic() > until:
                reason = (
                    str(error)
                    if isinstance(error, BrokerUnavailable)
                    else describe_trouble(settings.DATABASE, error)
                )
                text = f"There is no answer, so no worker was started: {reason}"
                raise CommandError(text, returncode=BROKER_UNREACHABLE) from error
            time.sleep(RETRY_S)


def refuse_stub() -> None:
    """
    Look whether workers could see any message.

    Raises:
        CommandError: The broker is the stub of the tests; it exits with 2.
    """
    if isinstance(get_broker(), import_string(STUB)) and not is_in_test():
        raise CommandError(
            "DJANGO_ACTORS['BROKER'] is the stub, which keeps messages in the memory of the "
            "process that sends them: no worker would ever see one. Leave it out, or set it to "
            '"database://default", redis:// or amqp://.',
            returncode=NOT_BOOTABLE,
        )


def check_tables() -> None:
    """
    Look for migrations that were not applied.

    Raises:
        CommandError: There are some; it exits with 2.
    """
    alias = settings.DATABASE
    if _own_migrations() <= MigrationRecorder(connections[alias]).applied_migrations().keys():
        return
    # It knows of squashed ones, and imports the migrations of all apps.
    executor = MigrationExecutor(connections[alias])
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes(APP))
    if missing:
        names = ", ".join(str(migration) for migration, _ in missing)
        raise CommandError(
            f"Database {alias!r} lacks migrations that the workers need: {names}. "
            f"Run: manage.py migrate --database {alias}",
            returncode=NOT_BOOTABLE,
        )


def _own_migrations() -> set[tuple[str, str]]:
    package = import_module(f"{APP}.migrations")
    return {(APP, module.name) for module in pkgutil.iter_modules(package.__path__)}


def warn_of_unknown_queues(queues: list[str] | None) -> None:
    known = get_broker().get_declared_queues()
    for name in queues or []:
        if name not in known:
            logger.warning("No actor uses queue %r.%s", name, nearest(name, known))


def warn_of_databases() -> None:
    for concern in [*check_sqlite(), *check_character_sets(connections)]:
        logger.warning("%s %s", concern.msg, concern.hint)


def let_go() -> None:
    """Close what the questions opened: the supervisor needs neither database nor broker."""
    get_broker().close()
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        if close_pool := getattr(connection, "close_pool", None):
            # Pools have threads, and a process that has some cannot be forked.
            close_pool()


def supervise(flags: dict[str, Any], verbosity: int) -> int:
    """Start the workers, keep them running, and return the exit code."""
    starts = StartReporter(settings.DATABASE)
    supervisor = Supervisor(
        worker_command(),
        processes=flags["processes"],
        threads=flags["threads"],
        config=worker_config(flags, verbosity),
        limits=Limits(
            stop=flags["shutdown_timeout"] / 1000 + STOP_MARGIN_S,
            grace=settings.TIME_LIMIT_GRACE / 1000,
        ),
        burst=flags["burst"],
        watching=flags["watch"] is not None,
        starts=starts,
        body=None if flags["start_method"] == "spawn" else forked_body(),
    )
    with contextlib.closing(starts), watching(flags["watch"], supervisor):
        return supervisor.run()


def worker_config(flags: dict[str, Any], verbosity: int) -> dict[str, Any]:
    """
    Return what every worker process is told, see process.py.

    Raises:
        CommandError: A new process would not find the settings; it exits with 2.
    """
    module = os.environ.get(ENVIRONMENT_VARIABLE)
    if not module:
        raise CommandError(
            "The settings of this process have no module, so no worker process could find them. "
            f"Set {ENVIRONMENT_VARIABLE}.",
            returncode=NOT_BOOTABLE,
        )
    names = ("threads", "queues", "shutdown_timeout", "max_messages", "max_memory", "burst")
    return {
        **{name: flags[name] for name in names},
        "settings": module,
        "verbosity": verbosity,
    }


@contextlib.contextmanager
def watching(directory: str | None, supervisor: Supervisor) -> Iterator[None]:
    if directory is None:
        yield
        return
    watcher = Watcher(directory, lambda paths: supervisor.reload(describe_changes(paths)))
    logger.info("Watching %s for changes.", directory)
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


def describe_changes(paths: list[str]) -> str:
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{others} changed"


@contextlib.contextmanager
def _held(path: str | None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            if path is not None:
                stack.enter_context(pid_file(path))
        except PidFileError as error:
            raise CommandError(str(error), returncode=PID_FILE_TAKEN) from error
        yield
