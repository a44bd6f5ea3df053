"""
How ``manage.py actors`` is asked: subcommands, filters, durations; and what a typo gets.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.utils.dateparse import parse_datetime

from django_actors import control
from django_actors.brokers import get_broker
from django_actors.delivery import Reason
from django_actors.registry import nearest, registry

BAD_ARGUMENT = 2

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

FILTERS = ("queue", "actor", "reason", "exception", "older_than", "newer_than")


class Subcommands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Subcommands that answer a typo with the nearest one."""

    def add(self, name: str, run: Callable[..., object] | None, text: str) -> Any:
        """Add a subcommand that *run* carries out."""
        parser = self.add_parser(name, help=text, description=text)
        if run is not None:
            parser.set_defaults(run=run)
            parser.add_argument("--json", action="store_true", help="write JSON")
        # Every name is let through, up to the call below, which knows better what to say.
        self.choices = _AnyName(self._name_parser_map)
        return parser

    def __call__(self, parser: Any, namespace: Any, values: Any, *args: Any) -> None:
        name = values[0]
        if name not in self._name_parser_map:
            known = ", ".join(self._name_parser_map)
            hint = nearest(name, self._name_parser_map)
            parser.error(f"There is no command {name!r}.{hint} There are: {known}.")
        super().__call__(parser, namespace, values, *args)


class _AnyName(dict[str, Any]):
    def __contains__(self, name: object) -> bool:
        return True


def add_subcommands(parser: Any) -> Subcommands:
    """Have *parser* take one of several subcommands."""
    added: Subcommands = parser.add_subparsers(
        action=Subcommands, metavar="COMMAND", required=True, title="commands"
    )
    return added


def read_duration(text: str) -> int:
    """Return the milliseconds of ``90s``, ``10m``, ``2h`` or ``7d``."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(
            f"A duration is a number and a unit, such as 90s, 10m, 2h or 7d, not {text!r}."
        )
    return int(found[1]) * _UNIT_MS[found[2]]


def read_time(text: str) -> datetime:
    """Return the point in time of ``2030-01-31T12:00`` or ``2030-01-31T12:00+02:00``."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise argparse.ArgumentTypeError(
            f"A time is a date and a time of day, such as 2030-01-31T12:00, not {text!r}."
        )
    return moment


def read_count(text: str) -> int:
    """Return a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"A whole number from 0 is needed, not {text!r}.")
    return int(text)


def add_filters(parser: Any, *, ids: bool) -> None:
    """Have *parser* take what ``select()`` reads."""
    if ids:
        parser.add_argument("ids", nargs="*", metavar="ID", help="message ids")
        parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--queue", help="of this queue")
    parser.add_argument("--actor", help="of this actor")
    parser.add_argument("--reason", help="for this reason, such as 'retries exhausted'")
    parser.add_argument("--exception", help="with this exception, such as KeyError")
    parser.add_argument("--older-than", type=read_duration, metavar="AGE", help="such as 2h")
    parser.add_argument("--newer-than", type=read_duration, metavar="AGE", help="such as 90s")


def select(make: Callable[..., control.Selection], options: Mapping[str, Any]) -> control.Selection:
    """
    Return what the filters select.

    Raises:
        CommandError: nothing was said, or a name is found nowhere; exits with 2.
    """
    given = {name: options[name] for name in FILTERS if options.get(name) is not None}
    ids = options.get("ids")
    if "all" in options and not (given or ids or options["all"]):
        raise _usage("Say which: message ids, filters such as --queue, or --all.")
    selection = make(ids=ids or None, **given)
    if not selection.count():
        _explain_nothing(given)
    return selection


def _explain_nothing(given: Mapping[str, Any]) -> None:
    """Nothing was found: say so of a name that is likely to be misspelled."""
    known: dict[str, set[str]] = {
        "queue": get_broker().get_declared_queues(),
        "actor": set(registry.actors()),
        "reason": {str(each) for each in Reason},
    }
    for name, names in known.items():
        value = given.get(name)
        if value is not None and value not in names:
            raise _usage(f"There is no {name} {value!r}.{nearest(value, names)}")


def _usage(text: str) -> CommandError:
    return CommandError(text, returncode=BAD_ARGUMENT)
