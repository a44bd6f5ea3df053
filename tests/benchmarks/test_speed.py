"""The harness of ``tests.benchmarks.speed`` measures, and says what it measured."""

from __future__ import annotations

import sys
from pathlib import Path

from django.test import SimpleTestCase, tag

from .speed.bodies import LAST, count_marks, kind_of
from .speed.contenders import BROKERS, CONTENDERS, FLOOR, OURS, Contender
from .speed.contest import Contest
from .speed.report import Result, make_table
from .speed.servers import Servers
from .speed.trees import tree_of
from .speed.workloads import WORKLOADS


@tag("processes")
class DrainTests(SimpleTestCase):
    def test_a_drain_runs_all_messages_and_leaves_no_process(self) -> None:
        floor = next(each for each in CONTENDERS if (each.name, each.broker) == (FLOOR, "sqlite"))

        with Servers(["sqlite"]) as servers, Contest(floor, Path(sys.executable), servers) as run:
            figures = WORKLOADS["drain"].run(run, 300)
            pids = run.pids

        self.assertEqual(figures["count"], 300)
        self.assertGreater(figures["rate"], 0)
        self.assertEqual(tree_of(pids), [])


class MarkTests(SimpleTestCase):
    def test_the_last_messages_of_a_drain_tell_when_they_ran(self) -> None:
        kinds = [kind_of(number, 1_000) for number in range(1_000)]

        self.assertEqual(set(kinds[-LAST:]), {"mark"})
        self.assertEqual(kinds.count("mark"), count_marks(1_000))
        self.assertLess(count_marks(20_000), 20_000 / 50)


class ContenderTests(SimpleTestCase):
    def test_each_broker_has_the_engine_and_its_floor(self) -> None:
        for broker in BROKERS:
            names = [each.name for each in CONTENDERS if each.broker == broker]
            self.assertEqual(names[:1], [OURS])
            self.assertIn(FLOOR, names)


class TableTests(SimpleTestCase):
    def test_a_table_has_medians_spread_and_how_ours_compares(self) -> None:
        results: dict[Contender, Result] = {
            Contender(OURS, "redis", "", ()): [
                {"rate": rate, "cpu_us": 50.0, "count": 20_000}
                for rate in (900.0, 1_000.0, 1_100.0)
            ],
            Contender("slow", "redis", "", ()): [{"rate": 500.0, "cpu_us": 200.0, "count": 2_000}],
            Contender("broken", "redis", "", ()): "a worker ended\nTraceback",
        }

        table = make_table(WORKLOADS["drain"], results)

        self.assertEqual(
            table.splitlines()[2:],
            [
                "| django_actors | 3 | 20,000 | 1,000 | 900 to 1,100 |  | 50 | 50 to 50 |  |",
                "| slow | 1 | 2,000 | 500 | 500 to 500 | 2.00 × | 200 | 200 to 200 | 4.00 × |",
                "",
                "Not run: broken (a worker ended)",
            ],
        )
