"""The harness of ``tests.benchmarks.speed`` measures, and says what it measured."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from django.test import SimpleTestCase, tag

from .speed import measures
from .speed.__main__ import describe_command, make_parser
from .speed.bodies import LAST, count_marks, kind_of
from .speed.contenders import BROKERS, CONTENDERS, FLOOR, OURS, OURS_CLASSIC, Contender
from .speed.contest import Contest
from .speed.goals import judge
from .speed.page import PAGE, make_digest, write_page
from .speed.results import Report, Results, Runs, load_reports
from .speed.rounds import plan_round, run_rounds
from .speed.sender import Sending
from .speed.servers import Servers
from .speed.tables import make_table
from .speed.trees import tree_of
from .speed.workloads import WORKLOADS

TINY = 200


def find(name: str, broker: str) -> Contender:
    return next(each for each in CONTENDERS if (each.name, each.broker) == (name, broker))


@tag("processes")
class WorkloadTests(SimpleTestCase):
    def setUp(self) -> None:
        # Where the harness tells how far it is.
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def test_each_workload_tells_all_its_figures_of_the_engine(self) -> None:
        engine = find(OURS, "sqlite")

        with (
            mock.patch.multiple(measures, IDLE_S=0.2, DUE_OVER_S=0.2, PART=0.001),
            Servers(["sqlite"]) as servers,
        ):
            results = run_rounds(
                dict.fromkeys(WORKLOADS, 1), [engine], Path(sys.executable), servers, TINY
            )

        for name, workload in WORKLOADS.items():
            with self.subTest(name):
                runs = results[name][engine]
                self.assertEqual(runs.failures, [])
                variants = [f"@{each}" for each in workload.variants] or [""]
                told = [f"{figure}{each}" for figure in workload.figures for each in variants]
                self.assertLessEqual(set(told), set(runs.figures[0]))
                self.assertGreater(runs.figures[0][told[0]], 0)

    def test_a_drain_runs_all_messages_and_leaves_no_process(self) -> None:
        floor = find(FLOOR, "sqlite")
        python = Path(sys.executable)

        with Servers(["sqlite"]) as servers, Contest(floor, python, servers, floor.crew(2)) as run:
            figures = WORKLOADS["drain"].run(run, 300)
            pids = run.pids

        self.assertEqual(figures["count"], 300)
        self.assertGreater(figures["rate"], 0)
        self.assertEqual(tree_of(pids), [])

    def test_who_fails_twice_is_left_out_and_its_failure_is_told(self) -> None:
        floor = find(FLOOR, "sqlite")
        fail = mock.Mock(side_effect=RuntimeError("out of order"))
        broken = mock.Mock(wraps=WORKLOADS["drain"], run=fail, alone=False)
        broken.crew, broken.takes = WORKLOADS["drain"].crew, WORKLOADS["drain"].takes

        with mock.patch.dict(WORKLOADS, drain=broken), Servers(["sqlite"]) as servers:
            results = run_rounds({"drain": 4}, [floor], Path(sys.executable), servers, TINY)

        self.assertEqual(fail.call_count, 2)
        told = make_table(WORKLOADS["drain"], results["drain"])
        self.assertIn("floor: not run (floor on sqlite: RuntimeError: out of order).", told)


class PlanTests(SimpleTestCase):
    def test_workloads_follow_one_another_on_the_same_workers(self) -> None:
        rounds = dict.fromkeys(WORKLOADS, 0)

        visits = list(plan_round(1, [find(OURS, "redis")], rounds))

        together = [set(visit.workloads) for visit in visits]
        self.assertIn({"idle", "latency", "drain", "waiting", "computing", "delayed"}, together)
        self.assertEqual(sum(map(len, together)), len(WORKLOADS))

    def test_who_has_no_threads_gets_processes_but_not_for_its_memory(self) -> None:
        contender = find("django-tasks-db", "sqlite")

        visits = list(plan_round(1, [contender], {"idle": 0, "drain": 0, "drain_one": 0}))

        processes = {visit.workloads: visit.crew.processes for visit in visits}
        self.assertEqual(processes, {("idle",): 2, ("drain",): 16, ("drain_one",): 8})

    def test_the_slowest_have_half_of_the_rounds_unless_the_command_says_how_many(self) -> None:
        slow = [find("rq", "redis")]
        due = WORKLOADS["drain"].rounds_of(slow[0])

        self.assertEqual(due, 3)
        self.assertEqual(list(plan_round(due + 1, slow, {"drain": 0})), [])
        self.assertEqual(len(list(plan_round(due + 1, slow, {"drain": 5}))), 1)


class SenderTests(SimpleTestCase):
    def test_a_delayed_message_is_late_from_when_it_was_due(self) -> None:
        sent: list[tuple[str, int, float]] = []
        engine = SimpleNamespace(send=None, send_batch=None, send_later=sent.extend)

        before = time.monotonic()
        due = Sending(engine).send_later(count=100, lead_s=60, over_s=5)

        self.assertEqual([number for _, number, _ in sent], list(range(100)))
        self.assertAlmostEqual(due[0], before + 60, delta=5)
        self.assertAlmostEqual(due[99] - due[0], 5 * 99 / 100)
        self.assertAlmostEqual(sent[99][2] - sent[0][2], 5 * 99 / 100, places=3)

    def test_a_message_that_is_sent_after_it_is_due_is_late_from_then(self) -> None:
        engine = SimpleNamespace(send=None, send_batch=None, send_later=lambda calls: None)

        before = time.monotonic()
        due = Sending(engine).send_later(count=10, lead_s=-60, over_s=5)

        self.assertGreaterEqual(min(due), before)


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

    def test_a_peer_on_rabbitmq_is_compared_with_ours_on_the_same_type_of_queue(self) -> None:
        pairs = {each.name: each.counterpart for each in CONTENDERS if each.broker == "rabbitmq"}

        for peer in ("dramatiq", "celery"):
            self.assertEqual(pairs[peer], OURS_CLASSIC)
            self.assertEqual(pairs[f"{peer} (quorum queue)"], OURS)
        self.assertEqual(pairs[FLOOR], OURS)

    def test_elsewhere_a_peer_is_compared_with_ours(self) -> None:
        self.assertEqual(find("dramatiq", "redis").counterpart, OURS)


class CommandTests(SimpleTestCase):
    def test_the_help_names_each_workload_and_each_server(self) -> None:
        text = make_parser().format_help()

        for name in (*WORKLOADS, *BROKERS, "BENCHMARK_REDIS_URL"):
            self.assertIn(name, text)

    def test_the_page_tells_the_command_without_the_places_of_files(self) -> None:
        words = ["--save", "x.json", "--workloads", "drain", "--write", "--environment=/tmp/x"]

        self.assertEqual(
            describe_command(words), "python -m tests.benchmarks.speed --workloads drain"
        )


def runs(name: str, *values: float) -> Runs:
    return Runs([{name: value} for value in values])


def report(results: Results) -> Report:
    return Report("Measured somewhere.", ["python -m tests.benchmarks.speed"], results)


class TableTests(SimpleTestCase):
    def rows(self, workload: str, results: dict[Contender, Runs]) -> Sequence[str]:
        return make_table(WORKLOADS[workload], results).splitlines()[2:]

    def test_a_table_has_medians_spread_and_how_ours_compares(self) -> None:
        rates = (900.0, 1_000.0, 1_100.0)
        results = {
            Contender(OURS, "redis", "", ()): Runs(
                [{"rate": rate, "cpu_us": 50.0, "count": 20_000} for rate in rates]
            ),
            Contender("slow", "redis", "", ()): Runs(
                [{"rate": 500.0, "cpu_us": 200.0, "count": 2_000}]
            ),
            Contender("broken", "redis", "", ()): Runs([], ["a worker ended\nTraceback"]),
        }

        self.assertEqual(
            self.rows("drain", results),
            [
                "| django_actors | 3 | 20,000 | 1,000 | 900 to 1,100 |  | 50 | 50 to 50 |  |",
                "| slow | 1 | 2,000 | 500 | – | 2.00 × | 200 | – | 4.00 × |",
                "",
                "broken: not run (a worker ended).",
            ],
        )

    def test_variants_are_compared_with_the_first_one_of_the_same_round(self) -> None:
        rounds = [(1_000.0, 900.0), (500.0, 400.0), (100.0, 100.0)]
        figures = [
            {"rate@none": none, "cpu_us@none": 10.0, "rate@far": far, "cpu_us@far": 10.0}
            for none, far in rounds
        ]

        rows = self.rows("far", {Contender(OURS, "redis", "", ()): Runs(figures)})

        self.assertIn("| 500 | 100 to 1,000 |  |", rows[0])
        self.assertIn("| 400 | 100 to 900 | 0.90 × |", rows[1])


class PageTests(SimpleTestCase):
    ours, peer = find(OURS, "redis"), find("dramatiq", "redis")

    def test_the_digest_tells_what_is_lost_and_to_whom(self) -> None:
        results: Results = {
            "drain": {self.ours: runs("rate", 300), self.peer: runs("rate", 100)},
            "enqueue": {self.ours: runs("one_by_one", 50), self.peer: runs("one_by_one", 100)},
        }

        digest = make_digest(report(results))

        self.assertIn("messages a second | 300 (3.00 × dramatiq) |", digest)
        self.assertIn("| **50 (0.50 × dramatiq)** |", digest)
        lost = [line for line in digest.splitlines() if line.startswith("- ")]
        self.assertEqual(lost, ["- `send()`, a second: Redis to dramatiq (0.50 ×)"])

    def test_a_loss_is_one_to_ours_with_the_same_type_of_queue(self) -> None:
        classic, quorum = find("dramatiq", "rabbitmq"), find("dramatiq (quorum queue)", "rabbitmq")
        results: Results = {
            "drain": {
                find(OURS, "rabbitmq"): runs("rate", 30),
                find(OURS_CLASSIC, "rabbitmq"): runs("rate", 80),
                classic: runs("rate", 100),
                quorum: runs("rate", 10),
            }
        }

        digest = make_digest(report(results))

        lost = [line for line in digest.splitlines() if line.startswith("- ")]
        self.assertEqual(
            lost, ["- drain, 2 × 8 threads, messages a second: RabbitMQ to dramatiq (0.80 ×)"]
        )

    def test_a_loss_within_the_noise_is_told_as_one(self) -> None:
        results: Results = {
            "drain": {self.ours: runs("rate", 90, 95, 99), self.peer: runs("rate", 94, 96, 120)}
        }

        self.assertIn("dramatiq (0.99 ×*)", make_digest(report(results)))

    def test_the_memory_of_workers_without_django_is_not_compared(self) -> None:
        results: Results = {
            "idle": {
                self.ours: runs("memory_mb", 90),
                self.peer: runs("memory_mb", 99),
                find("rq", "redis"): runs("memory_mb", 20),
            }
        }

        self.assertIn("| 90 (1.10 × dramatiq) |", make_digest(report(results)))

    def test_a_goal_is_judged_by_its_figures_and_not_told_without(self) -> None:
        results: Results = {
            "drain": {self.ours: runs("rate", 300), self.peer: runs("rate", 100)},
            "delayed": {self.ours: runs("p99", 100)},
        }

        verdicts = [(each.asked, each.measured, each.reached) for each in judge(report(results))]

        self.assertEqual(
            verdicts, [("5 × dramatiq", "3.00 ×", False), ("at most 250", "100.0", True)]
        )

    def test_figures_are_written_in_their_places_and_the_rest_stays(self) -> None:
        results: Results = {"drain": {self.ours: runs("rate", 300)}}
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory, "page.md")
            page.write_text(PAGE.read_text())

            write_page(report(results), page)
            once = page.read_text()
            write_page(report(results), page)

            self.assertEqual(page.read_text(), once)
        self.assertIn("Measured somewhere.", once)
        self.assertTrue(once.startswith(PAGE.read_text().partition("<!-- digest -->")[0]))

    def test_the_rounds_of_two_runs_that_were_kept_add_up(self) -> None:
        first: Results = {
            "drain": {self.ours: runs("rate", 1), self.peer: runs("rate", 2)},
            "latency": {self.ours: Runs([], ["in vain"])},
        }
        second: Results = {"drain": {self.ours: runs("rate", 3)}}
        with tempfile.TemporaryDirectory() as directory:
            files = [Path(directory, name) for name in ("first", "second")]
            for file, results in zip(files, (first, second), strict=True):
                file.write_text(report(results).dump())

            loaded = load_reports(files)

        self.assertEqual(loaded.results["drain"][self.ours], runs("rate", 1, 3))
        self.assertEqual(loaded.results["drain"][self.peer], runs("rate", 2))
        self.assertEqual(loaded.results["latency"], first["latency"])
