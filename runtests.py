#!/usr/bin/env python
"""
Run the whole test-suite with the packages of this environment.

SQLite always; PostgreSQL, MariaDB, Redis and RabbitMQ if they answer. What was not run is said in
one line at the end. Each database has a process of its own: the first one runs every test, the
others the tests that touch a database.

Servers elsewhere than at 127.0.0.1 are named in TEST_POSTGRES_URL, TEST_MYSQL_URL, TEST_REDIS_URL
and TEST_RABBITMQ_URL. The tests find the last two set exactly when the server has answered.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent
# Tests that start real worker processes stand in this package, or have the tag "processes".
PROCESS_TESTS = "tests.processes."
# Tests with one of these tags are for the databases of this vendor alone.
VENDORS = {"sqlite", "postgresql", "mysql"}
CONNECT_TIMEOUT_S = 3
TEST_TIMEOUT_S = 120
LONG_TEST_TIMEOUT_S = 3_600


@dataclass
class Outcome:
    """What became of the tests, by their ids; for the skipped ones with the reason."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def main() -> int:
    options = parse_arguments()
    return run_inside(options) if options.inside else run_all(options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the test-suite.")
    parser.add_argument("labels", nargs="*", default=["tests"], help="dotted names, or paths")
    parser.add_argument(
        "--databases", metavar="A,B", help="fail if one does not answer; default: all that do"
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--fast", action="store_true", help="leave out the real worker processes")
    speed.add_argument("--only-processes", action="store_true", help="what --fast leaves out")
    parser.add_argument(
        "--require-all", action="store_true", help="fail if a server is missing or a test skipped"
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="LABEL")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="databases at a time; default: %(default)s, as there are cores",
    )
    parser.add_argument(
        "--faults", choices=["long"], help="only the tests of faults, in their long size"
    )
    parser.add_argument("-k", action="append", metavar="PATTERN", help="only tests that match")
    parser.add_argument("-v", "--verbosity", type=int, default=1)
    parser.add_argument("--failfast", action="store_true")
    parser.add_argument("--durations", type=int, metavar="N", help="show the N slowest tests")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="the order of an earlier run")
    parser.add_argument("--inside", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--every-test", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.faults and options.labels == ["tests"]:
        options.labels = ["tests.faults"]
    options.exclude = [as_label(text) for text in options.exclude]
    options.asked_for = options.databases is not None
    options.databases = options.databases.split(",") if options.asked_for else [*DATABASES]
    if unknown := set(options.databases) - set(DATABASES):
        parser.error(f"no database {sorted(unknown)[0]!r}; there are {', '.join(DATABASES)}")
    return options


# The servers: where they are, and whether they answer.


@dataclass(frozen=True)
class Server:
    name: str
    variable: str
    default_url: str
    connect: Callable[[str], object]

    @property
    def url(self) -> str:
        return os.environ.get(self.variable, self.default_url)

    def why_not(self) -> str:
        """Say why the server cannot be used; an empty text if it can."""
        try:
            self.connect(self.url)
        except ImportError as error:
            return f"{self.name} ({error.name} is not installed)"
        except Exception as error:  # each client has its own; any of them means no
            address = urlsplit(self.url.split(";")[0])
            return f"{self.name} ({type(error).__name__} at {address.hostname}:{address.port})"
        return ""


def connect_postgresql(url: str) -> None:
    import psycopg

    psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S).close()


def connect_mariadb(url: str) -> None:
    import pymysql

    parts = urlsplit(url)
    pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        connect_timeout=CONNECT_TIMEOUT_S,
    ).close()


def connect_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT_S) as client:
        client.ping()


def connect_rabbitmq(url: str) -> None:
    import pika

    logging.getLogger("pika").setLevel(logging.CRITICAL)
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = CONNECT_TIMEOUT_S
    pika.BlockingConnection(parameters).close()


DATABASES = {
    "sqlite": None,
    "postgresql": Server(
        "PostgreSQL",
        "TEST_POSTGRES_URL",
        "postgres://postgres:postgres@127.0.0.1:5432/postgres",
        connect_postgresql,
    ),
    "mariadb": Server(
        "MariaDB", "TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/mysql", connect_mariadb
    ),
}
BROKERS = [
    Server("Redis", "TEST_REDIS_URL", "redis://127.0.0.1:6379/15", connect_redis),
    Server(
        "RabbitMQ", "TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2F", connect_rabbitmq
    ),
]


# The outer process: asks who answers, starts a process for each database, adds up.


def run_all(options: argparse.Namespace) -> int:
    """Run the suite on each database that answers; return the exit code."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        # Worker processes of the tests must find the same packages as the tests.
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
        "PYTHONDEVMODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if options.faults:
        environment["ACTORS_TEST_FAULTS"] = options.faults
    missing = find_brokers(environment)
    outcomes: list[Outcome] = []
    answering: list[str] = []
    for name in options.databases:
        server = DATABASES[name]
        if reason := server.why_not() if server else "":
            missing.append(reason)
            if options.asked_for:
                outcomes.append(Outcome(failed=[reason]))
        else:
            answering.append(name)
    outcomes += run_on_databases(answering, environment, options)
    return summarize(outcomes, missing, options)


def run_on_databases(
    names: list[str], environment: dict[str, str], options: argparse.Namespace
) -> list[Outcome]:
    """Run the suite on some databases, *options.jobs* of them at a time."""
    jobs = min(options.jobs, len(names))
    if jobs > 1:
        print(f"{', '.join(names)}: {jobs} at a time; each tells when it is done.", flush=True)

    def run(number: int, name: str) -> Outcome:
        # One at a time is seen as it runs; several would be a muddle.
        with tempfile.TemporaryFile("w+") if jobs > 1 else nullcontext() as log:
            if log is None:
                print(f"\n--- {name}", flush=True)
            outcome = run_on_database(number, name, environment, log)
            text = "" if log is None else f"\n--- {name}\n{read_again(log)}"
            print(f"{text}{name}: {outcome}", flush=True)
            return outcome

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(run, range(len(names)), names))


def read_again(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def find_brokers(environment: dict[str, str]) -> list[str]:
    """Name the brokers that answer in *environment*; return why the others do not."""
    missing = []
    for server in BROKERS:
        environment.pop(server.variable, None)
        if reason := server.why_not():
            missing.append(reason)
        else:
            environment[server.variable] = server.url
    return missing


def run_on_database(
    number: int, name: str, environment: dict[str, str], log: IO[str] | None
) -> Outcome:
    """Run the tests in a process of their own, on a database that no other run uses."""
    server = DATABASES[name]
    with tempfile.TemporaryDirectory(prefix="django_actors_tests_") as directory:
        results = Path(directory, "results.json")
        if server:
            url = urlsplit(server.url)._replace(path=f"/actors_{os.getpid()}").geturl()
        else:
            url = f"sqlite:///{directory}/actors.sqlite3"
        command = [sys.executable, "-W", "error", *sys.argv, "--inside", str(results)]
        if number == 0:
            command.append("--every-test")
        report = Path(directory, "report")
        code = subprocess.call(
            command,
            env={**environment, "DATABASE_URL": url, "ACTORS_TEST_REPORT": str(report)},
            cwd=ROOT,
            stdout=log,
            stderr=log and subprocess.STDOUT,
        )
        outcome = Outcome(**json.loads(results.read_text())) if results.exists() else Outcome()
        if report.exists():
            print(f"\n{report.read_text()}", file=log, flush=True)
        if code and not outcome.failed:
            outcome.failed.append(f"the test process ended with exit code {code}")
        return outcome


def summarize(outcomes: list[Outcome], missing: list[str], options: argparse.Namespace) -> int:
    """Print what was not run and the totals; return the exit code."""
    total = Outcome()
    for outcome in outcomes:
        total.passed += outcome.passed
        total.failed += outcome.failed
        total.skipped |= outcome.skipped
    # A test that one database cannot run and another has run is not skipped.
    for test in {*total.passed, *total.failed} & set(total.skipped):
        del total.skipped[test]

    not_run = [
        *missing,
        *(f"{n} tests ({why})" for why, n in Counter(total.skipped.values()).items()),
    ]
    if options.fast:
        not_run.append("real worker processes (--fast)")
    if options.only_processes:
        not_run.append("all but real worker processes (--only-processes)")
    print()
    if not_run:
        print(f"Not run: {', '.join(not_run)}.")
    print(total)
    incomplete = options.require_all and (missing or total.skipped)
    return 1 if total.failed or incomplete or not total.passed else 0


# The inner process: one database, Django's test runner.


def run_inside(options: argparse.Namespace) -> int:
    """Run the tests in this process and write their outcome to a file."""
    import django
    from django.conf import settings
    from django.test.utils import get_runner

    django.setup()
    runner_class: type[Any] = type("Runner", (SelectingRunner, get_runner(settings)), {})
    runner = runner_class(
        interactive=False,
        verbosity=options.verbosity,
        failfast=options.failfast,
        shuffle=options.shuffle,
        test_name_patterns=options.k,
        durations=options.durations,
    )
    runner.options = options
    failures = runner.run_tests([as_label(text) for text in options.labels])
    Path(options.inside).write_text(json.dumps(asdict(runner.outcome)))
    return 1 if failures else 0


def as_label(text: str) -> str:
    """Return the dotted name of a path, which the shell completes more easily."""
    return text.removesuffix(".py").strip("/").replace("/", ".")


def tags_of(test: unittest.TestCase) -> set[str]:
    method = getattr(test, test.id().rpartition(".")[2], None)
    return {*getattr(test, "tags", ()), *getattr(method, "tags", ())}


def is_process_test(test: unittest.TestCase) -> bool:
    return test.id().startswith(PROCESS_TESTS) or "processes" in tags_of(test)


def is_for_vendor(test: unittest.TestCase, vendor: str) -> bool:
    vendors = VENDORS & tags_of(test)
    return not vendors or vendor in vendors


class OutcomeResult(unittest.TextTestResult):
    """A test result that remembers what became of each test."""

    outcome: Outcome

    def startTest(self, test: unittest.TestCase) -> None:
        # A test that hangs, or an exit after the last one, ends the process and says where.
        is_long = bool({"ACTORS_TEST_FAULTS", "ACTORS_TEST_SCALE"} & os.environ.keys())
        timeout_s = LONG_TEST_TIMEOUT_S if is_long else TEST_TIMEOUT_S
        faulthandler.dump_traceback_later(timeout_s, exit=True)
        super().startTest(test)

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.outcome.passed.append(test.id())

    def addExpectedFailure(self, test: unittest.TestCase, error: Any) -> None:
        super().addExpectedFailure(test, error)
        self.outcome.passed.append(test.id())

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.outcome.failed.append(test.id())

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcome.skipped[test.id()] = reason

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:
        super().addFailure(test, error)
        self.outcome.failed.append(test.id())

    def addError(self, test: unittest.TestCase, error: Any) -> None:
        super().addError(test, error)
        self.outcome.failed.append(test.id())

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.outcome.failed.append(subtest.id())


class SelectingRunner:
    """What this file adds to Django's runner: which tests run, and their outcome."""

    options: argparse.Namespace

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outcome = Outcome()

    def get_resultclass(self) -> type[OutcomeResult]:
        return type("Result", (OutcomeResult,), {"outcome": self.outcome})

    def load_tests_for_label(self, label: str, discover_kwargs: Any) -> Iterator[Any]:
        from django.test.utils import iter_test_cases  # type: ignore[attr-defined]

        tests = super().load_tests_for_label(label, discover_kwargs)  # type: ignore[misc]
        return (test for test in iter_test_cases(tests) if self.is_wanted(test))

    def is_wanted(self, test: unittest.TestCase) -> bool:
        from django.db import connection
        from django.test import TransactionTestCase

        if not is_for_vendor(test, connection.vendor):
            return False
        if is_process_test(test) and self.options.fast:
            return False
        if test.id().startswith(tuple(self.options.exclude)):
            return False
        if not is_process_test(test) and self.options.only_processes:
            return False
        return self.options.every_test or isinstance(test, TransactionTestCase)


if __name__ == "__main__":
    sys.exit(main())
