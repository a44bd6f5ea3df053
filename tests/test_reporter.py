"""What a worker tells operators through the database, and that it obeys a pause."""

from __future__ import annotations

import json
import time
from typing import Any
from unittest import mock

from django.db import OperationalError
from django.test import SimpleTestCase

from django_actors import Worker, counts, dispatcher, pauses, roster
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.stub import StubBroker
from django_actors.models import ActorCount, Period, QueuedMessage, WorkerRecord
from django_actors.reporter import LISTEN_S
from tests.engine import EngineCase, RemoteBroker, silence, wait_until
from tests.test_worker import WorkerMixin

ALIAS = "default"

LOGGER = "django_actors.reporter"


class ReporterCase(WorkerMixin, EngineCase):
    def make_broker(self) -> Any:
        return DatabaseBroker()

    def wait_for_row(self) -> WorkerRecord:
        found: list[WorkerRecord] = wait_until(lambda: list(WorkerRecord.objects.all()), "a row")
        return found[0]


class HeartbeatTests(ReporterCase):
    def test_a_worker_tells_who_it_is_and_what_it_runs(self):
        self.declare(self.door.stand, actor_name="block", queue_name="mail").send()
        with mock.patch("django_actors.reporter.REPORT_S", 0.0):
            worker = self.start(queues=["mail"])
            self.door.wait()
            wait_until(lambda: WorkerRecord.objects.filter(busy=1).exists())
        row = self.wait_for_row()

        self.assertEqual((row.owner, row.threads, row.busy), (worker.owner, 2, 1))
        self.assertEqual(json.loads(row.queues), ["mail"])
        [running] = json.loads(row.running)
        self.assertEqual((running["actor_name"], running["queue_name"]), ("block", "mail"))
        self.assertLessEqual(abs(running["since_ms"] - time.time() * 1_000), 60_000)
        self.assertGreater(row.memory_bytes, 1_000_000)

    def test_a_worker_is_known_before_it_may_claim_anything(self):
        worker = Worker(self.broker)
        assert worker.reporter is not None
        known: list[bool] = []

        with mock.patch.object(
            worker.intake,
            "set_paused",
            side_effect=lambda names: known.append(WorkerRecord.objects.exists()),
        ):
            worker.reporter.introduce()

        self.assertEqual(known, [True])

    def test_a_worker_that_stops_takes_its_row_away(self):
        worker = self.start()
        self.wait_for_row()

        worker.stop()

        self.assertFalse(WorkerRecord.objects.exists())

    def test_it_tells_that_it_lives_while_it_waits_for_its_last_message(self):
        self.declare(self.door.stand, actor_name="block").send()
        with mock.patch("django_actors.reporter.REPORT_S", 0.0):
            worker = self.start()
            self.door.wait()
            worker._close_doors()
            wait_until(lambda: worker.dispatcher.draining)
            WorkerRecord.objects.all().delete()

            wait_until(lambda: WorkerRecord.objects.filter(busy=1).exists(), "another report")


class CountTests(ReporterCase):
    def counted(self) -> list[tuple[Any, ...]]:
        rows = ActorCount.objects.filter(period=Period.HOUR).order_by("actor_name")
        return list(rows.values_list("actor_name", "succeeded", "failed", "retried", "dead"))

    def test_a_worker_that_stops_has_told_of_every_message(self):
        def fail() -> None:
            raise ValueError("no")

        failing = self.declare(fail, actor_name="fail", max_retries=0)
        with silence():
            worker = self.start()
            for _ in range(20):
                self.note.send("x")
            failing.send()
            wait_until(lambda: not QueuedMessage.objects.exists(), "an empty queue")
            worker.stop()

        self.assertEqual(self.counted(), [("fail", 0, 1, 0, 1), ("note", 20, 0, 0, 0)])

    def test_counts_that_cannot_be_written_stop_no_message_and_are_told_of_once(self):
        error = OperationalError("no room")
        with (
            mock.patch.object(counts, "add", side_effect=error),
            mock.patch("django_actors.reporter.REPORT_S", 0.0),
            self.assertLogs(LOGGER, "WARNING") as logs,
        ):
            worker = self.start()
            for n in range(3):
                self.note.send(n)
                wait_until(lambda: len(self.ran) == n + 1)  # noqa: B023 - called in the loop
            self.wait_until_settled(worker)
            worker.stop()

        self.assertEqual(sorted(self.ran), [0, 1, 2])
        self.assertEqual([record.getMessage().count("counts") for record in logs.records], [1])

    def test_a_database_that_others_are_writing_to_is_no_trouble(self):
        locked = OperationalError("database is locked")
        with (
            mock.patch.object(roster, "report", side_effect=[locked, None, None]) as report,
            mock.patch("django_actors.reporter.REPORT_S", 0.0),
            self.assertNoLogs(LOGGER, "WARNING"),
        ):
            worker = Worker(self.broker)
            assert worker.reporter is not None
            worker.reporter.tend()
            worker.reporter.tend()

        self.assertEqual(report.call_count, 2)

    def test_a_heartbeat_that_cannot_be_written_stops_no_message(self):
        with (
            mock.patch.object(roster, "report", side_effect=OperationalError("no room")),
            self.assertLogs(LOGGER, "WARNING"),
        ):
            worker = self.start()
            self.note.send("Ada")
            self.wait_until_ran("Ada")
            worker.stop()

    def test_an_idle_worker_writes_its_heartbeat_alone(self):
        with (
            mock.patch("django_actors.reporter.REPORT_S", 0.0),
            mock.patch.object(counts, "add") as add,
        ):
            worker = self.start()
            self.wait_for_row()
            worker.stop()

        add.assert_not_called()

    def test_a_worker_of_a_stub_asks_no_database(self):
        worker = Worker(StubBroker())

        self.assertIsNone(worker.reporter)


class PauseMixin(ReporterCase):
    """For a broker in the database and for one outside of it."""

    def pause(self, queue_name: str = "default") -> None:
        pauses.pause(queue_name, by="ada", alias=ALIAS)

    def wait_until_obeyed(self, worker: Worker, *queue_names: str) -> None:
        wait_until(lambda: worker.intake._paused == frozenset(queue_names), "obedience")
        wait_until(lambda: worker.intake._read_queues.isdisjoint(queue_names), "obedience")

    def test_a_paused_queue_is_read_by_no_worker_until_it_is_resumed(self):
        worker = self.start()
        self.pause()
        self.wait_until_obeyed(worker, "default")
        other = self.declare(lambda: self.ran.append("other"), actor_name="o", queue_name="other")

        self.note.send("paused")
        other.send()
        self.wait_until_ran("other")
        self.assertEqual(self.ready(), 1)

        pauses.resume("default", alias=ALIAS)
        self.wait_until_ran("other", "paused")

    def test_a_pause_survives_a_restart(self):
        self.pause()
        self.note.send("paused")
        other = self.declare(lambda: self.ran.append("other"), actor_name="o", queue_name="other")

        self.start()
        other.send()
        self.wait_until_ran("other")

        self.assertEqual(self.ready(), 1)

    def test_what_runs_is_finished_and_what_was_not_begun_goes_back(self):
        block = self.declare(self.door.stand, actor_name="block")
        worker = self.start(worker_threads=1)
        with mock.patch.object(type(worker.intake._pace), "ahead", 4):
            for _ in range(4):
                block.send()
            self.door.wait()
            self.pause()
            self.wait_until_obeyed(worker, "default")
            wait_until(lambda: self.ready() == 3, "three messages that went back")

        self.door.open()
        self.wait_until_settled(worker)

        self.assertEqual(tuple(self.broker.queue_size("default")), (3, 0))

    def test_what_becomes_due_moves_to_the_broker_and_waits_there(self):
        worker = self.start()
        self.pause()
        self.wait_until_obeyed(worker, "default")

        self.note.send_with_options(args=("later",), delay=10)

        wait_until(lambda: self.ready() == 1, "the message in the broker")
        self.assertEqual(self.ran, [])

    def test_a_burst_ends_though_a_paused_queue_holds_messages(self):
        self.pause()
        self.note.send("paused")

        worker = self.start(burst=True)

        self.assertTrue(worker.done.wait(20))
        self.assertEqual((worker.done_reason, self.ready(), self.ran), ("burst", 1, []))

    def test_nothing_runs_before_it_is_known_what_is_paused(self):
        self.note.send("Ada")
        with (
            mock.patch.object(pauses, "read_names", side_effect=OperationalError("away")),
            self.assertLogs(LOGGER, "WARNING"),
        ):
            worker = self.start()
            wait_until(lambda: worker.reporter is not None and worker.reporter._troubles)
            self.assertEqual((self.ready(), self.ran), (1, []))

        self.wait_until_ran("Ada")


class PromptnessTests(SimpleTestCase):
    def test_an_idle_worker_hears_of_a_pause_within_two_seconds(self):
        self.assertLess(LISTEN_S + dispatcher.LONGEST_WAIT_S, 2.0)
        self.assertLess(LISTEN_S + dispatcher.LONGEST_PAUSE_S, 2.0)


class DatabasePauseTests(PauseMixin):
    pass


class RemotePauseTests(PauseMixin):
    def make_broker(self) -> Any:
        return RemoteBroker()


del PauseMixin
