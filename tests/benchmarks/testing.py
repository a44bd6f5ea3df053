"""
What a test costs: ``run_actors()`` in a ``TestCase``, and a threaded worker in its place.

    DATABASE_URL=... python -m tests.benchmarks.testing [--tests 200] [--rounds 5]

Both suites send one message and look at the row that its actor wrote. The threaded worker needs
a ``TransactionTestCase``: its threads do not see what the test's transaction holds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import unittest
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


def make_cases() -> tuple[type[unittest.TestCase], type[unittest.TestCase]]:
    from django.contrib.auth.models import Group
    from django.test import TestCase, TransactionTestCase

    from django_actors import Worker, actor, get_broker
    from django_actors.test import run_actors

    @actor(actor_name="benchmark.make_group")
    def make_group(name: str) -> None:
        Group.objects.create(name=name)

    class InThisThread(TestCase):
        def test_it(self) -> None:
            make_group.send("staff")
            run_actors()
            self.assertTrue(Group.objects.filter(name="staff").exists())

    class InWorkerThreads(TransactionTestCase):
        def test_it(self) -> None:
            broker = get_broker()
            worker = Worker(broker, worker_timeout=100)
            worker.start()
            self.addCleanup(worker.stop)
            make_group.send("staff")
            broker.join("default")
            worker.join()
            self.assertTrue(Group.objects.filter(name="staff").exists())

    return InThisThread, InWorkerThreads


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
        ours, threaded = make_cases()
        for case in (ours, threaded):
            measure(case, 5)
        pairs = [
            (measure(ours, options.tests), measure(threaded, max(1, options.tests // 10)))
            for _ in range(options.rounds)
        ]
    finally:
        runner.teardown_databases(databases)
        runner.teardown_test_environment()
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"run_actors(): {mine:.2f} ms a test; threaded worker: {theirs:.1f} ms a test")
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    print(f"ratio: {statistics.median(ratios):.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})")


if __name__ == "__main__":
    main()
