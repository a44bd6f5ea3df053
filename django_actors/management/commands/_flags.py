"""
The flags of ``runactors``: what they are called, where their values come from.

A flag beats its environment variable (``--max-messages``: ``ACTORS_MAX_MESSAGES``),
and that beats the default. Both are read by the same function, so both complain
in the same words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import environ
from django.core.management.base import CommandError, CommandParser

from django_actors.registry import nearest

BAD_ARGUMENT = 2
START_METHODS = ("auto", "spawn")
TRUE = {"1", "true", "yes", "on", "y"}
FALSE = {"0", "false", "no", "off", "n"}


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from *minimum*."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise ValueError(f"must be a whole number from {minimum}")
        return int(text)

    return read


def read_queues(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("must be names of queues, separated by commas")
    return names


def read_truth(text: str) -> bool:
    if text.lower() not in TRUE | FALSE:
        raise ValueError("must be true or false")
    return text.lower() in TRUE


def read_start_method(text: str) -> str:
    if text not in START_METHODS:
        raise ValueError(f"must be one of {', '.join(START_METHODS)}")
    return text


def read_directory(text: str) -> str | None:
    """Return an absolute path; a word for yes is the current directory, one for no is None."""
    if text.lower() in FALSE:
        return None
    path = os.path.realpath("." if text.lower() in TRUE else text)
    if not os.path.isdir(path):
        raise ValueError("must be a directory that exists")
    return path


def count_cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Flag:
    """One flag; ``how`` are arguments of ``ArgumentParser.add_argument()``."""

    name: str
    read: Callable[[str], Any]
    help: str
    default: Callable[[], Any] = lambda: None
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return f"ACTORS_{self.dest.upper()}"

    def value(self, given: object) -> Any:
        """Return the value of the flag, of its environment variable, or the default."""
        if given is not None:
            return self._checked(_as_text(given), f"--{self.name}")
        if text := environ.Env().str(self.variable, default=""):
            return self._checked(text, self.variable)
        return self.default()

    def _checked(self, text: str, source: str) -> Any:
        try:
            return self.read(text)
        except ValueError as error:
            raise CommandError(
                f"{source} {error}, not {text!r}.", returncode=BAD_ARGUMENT
            ) from error


FLAGS = [
    Flag(
        "processes",
        at_least(1),
        "worker processes; default: the number of CPU cores",
        default=count_cores,
        how={"metavar": "N"},
    ),
    Flag(
        "threads",
        at_least(1),
        "worker threads of each process; default: 8",
        default=lambda: 8,
        how={"metavar": "N"},
    ),
    Flag(
        "queues",
        read_queues,
        "consume only these queues, separated by commas; default: all",
        how={"metavar": "A,B"},
    ),
    Flag(
        "watch",
        read_directory,
        "reload when a Python file under this directory changes; default: the current one",
        how={"metavar": "DIR", "nargs": "?", "const": "."},
    ),
    Flag("pid-file", str, "write the process id here, and keep a second one out"),
    Flag(
        "shutdown-timeout",
        at_least(0),
        "milliseconds that running actors have when the workers stop; default: 30000",
        default=lambda: 30_000,
        how={"metavar": "MS"},
    ),
    Flag(
        "max-messages",
        at_least(1),
        "replace a process after it has run so many messages",
        how={"metavar": "N"},
    ),
    Flag(
        "max-memory",
        at_least(1),
        "replace a process that uses more than so many megabytes",
        how={"metavar": "MB"},
    ),
    Flag(
        "start-method",
        read_start_method,
        "spawn: each process loads the project anew; default: auto, forks where that is safe",
        default=lambda: "auto",
        how={"metavar": "METHOD"},
    ),
    Flag(
        "burst",
        read_truth,
        "exit when nothing is left to run",
        default=lambda: False,
        how={"action": "store_true"},
    ),
]


def add_flags(parser: CommandParser) -> None:
    for flag in FLAGS:
        text = f"{flag.help} [{flag.variable}]"
        parser.add_argument(f"--{flag.name}", default=None, help=text, **flag.how)


def explain(message: str) -> str:
    """Return what argparse complains of, with the flags that were meant."""
    if "unrecognized arguments" not in message:
        return message
    known = [f"--{flag.name}" for flag in FLAGS]
    given = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
    return message + "".join(nearest(word, known) for word in given)


def read_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the value of every flag, by its name with underscores.

    Raises:
        CommandError: A value cannot be used; it says which, and exits with 2.
    """
    return {flag.dest: flag.value(options.get(flag.dest)) for flag in FLAGS}


def _as_text(given: object) -> str:
    # From the command line it is text; call_command() may pass numbers and lists.
    return ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
