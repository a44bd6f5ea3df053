"""
What a test costs: ``run_actors()`` in a ``TestCase``, and a threaded worker in its place.

    DATABASE_URL=... python -m tests.benchmarks.testing [--tests 200] [--rounds 5]

All suites send one message and look at the row that its actor wrote. A threaded worker needs
a ``TransactionTestCase``: its threads do not see what the test's transaction holds. Where
dramatiq is installed, its worker is measured as well, with its stub broker.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import django

PROJECT = Path(__file__).resolve().parents[2] / "testproject"


def measure(case: type[unittest.TestCase], tests: int) -> float:
    """Return the milliseconds a test of *case* takes, in a run of *tests* of them."""
    suite = unittest.TestSuite(case("test_it") for _ in range(tests))
    result = unittest.TestResult()
    began = time.perf_counter()
    suite.run(result)
    elapsed = time.perf_counter() - began
    if not result.wasSuccessful():
        raise SystemExit("".join(text for _, text in result.errors + result.failures))
    return 1_000 * elapsed / tests


def make_cases() -> dict[str, type[unittest.TestCase]]:
    """Return the contenders by name; ``run_actors()`` is the first."""
    from django.contrib.auth.models import Group
    from django.test import TestCase, TransactionTestCase

    from django_actors import Worker, actor, get_broker
    from django_actors.test import run_actors

    def make_group(name: str) -> None:
        Group.objects.create(name=name)

    ours = actor(make_group, actor_name="benchmark.make_group")

    class InThisThread(TestCase):
        def test_it(self) -> None:
            ours.send("staff")
            run_actors()
            self.assertTrue(Group.objects.filter(name="staff").exists())

    class InWorkerThreads(TransactionTestCase):
        def test_it(self) -> None:
            broker = get_broker()
            worker = Worker(broker, worker_timeout=100)
            worker.start()
            self.addCleanup(worker.stop)
            ours.send("staff")
            broker.join("default")
            worker.join()
            self.assertTrue(Group.objects.filter(name="staff").exists())

    cases: dict[str, type[unittest.TestCase]] = {
        "run_actors()": InThisThread,
        "threaded worker": InWorkerThreads,
    }
    if importlib.util.find_spec("dramatiq"):
        cases["threaded worker of dramatiq"] = make_dramatiq_case(make_group)
    return cases


def make_dramatiq_case(make_group: Callable[[str], None]) -> type[unittest.TestCase]:
    import dramatiq
    from django.contrib.auth.models import Group
    from django.db import connections
    from django.test import TransactionTestCase
    from dramatiq.brokers.stub import StubBroker

    def close_connections(self: object, broker: object, thread: object) -> None:
        """Do what django_dramatiq does, so that the test's database can be emptied."""
        connections.close_all()

    hooks = {"before_worker_thread_shutdown": close_connections}
    # It grumbles at each worker after the first that its broker gets.
    logging.getLogger("dramatiq").setLevel(logging.ERROR)
    stub = StubBroker()
    stub.add_middleware(type("CloseConnections", (dramatiq.Middleware,), hooks)())
    dramatiq.set_broker(stub)
    theirs = dramatiq.actor(actor_name="make_group")(make_group)

    class InDramatiqThreads(TransactionTestCase):
        def test_it(self) -> None:
            worker = dramatiq.Worker(stub, worker_timeout=100)
            worker.start()
            self.addCleanup(worker.stop)
            theirs.send("staff")
            stub.join("default")
            worker.join()
            self.assertTrue(Group.objects.filter(name="staff").exists())

    return InDramatiqThreads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    sys.path.insert(0, str(PROJECT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from django.conf import settings
    from django.test.runner import DiscoverRunner
    from django.test.utils import get_runner

    runner: DiscoverRunner = get_runner(settings)(interactive=False, verbosity=0)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    try:
        cases = make_cases()
        for case in cases.values():
            measure(case, 5)
        rounds = [measure_all(cases, options.tests) for _ in range(options.rounds)]
    finally:
        runner.teardown_databases(databases)
        runner.teardown_test_environment()
    report(rounds)


def measure_all(cases: dict[str, type[unittest.TestCase]], tests: int) -> dict[str, float]:
    """Return the milliseconds of a test of each contender; the slow ones get fewer tests."""
    first, *others = cases
    figures = {first: measure(cases[first], tests)}
    figures |= {name: measure(cases[name], max(1, tests // 10)) for name in others}
    return figures


def report(rounds: list[dict[str, float]]) -> None:
    first, *others = rounds[0]
    print(f"{first}: {statistics.median(each[first] for each in rounds):.2f} ms a test")
    for name in others:
        ratios = sorted(each[name] / each[first] for each in rounds)
        print(
            f"{name}: {statistics.median(each[name] for each in rounds):.1f} ms a test, "
            f"{statistics.median(ratios):.0f} times that ({ratios[0]:.0f} to {ratios[-1]:.0f})"
        )


if __name__ == "__main__":
    main()
