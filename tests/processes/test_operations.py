"""What operators hear from real worker processes, and that these obey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from django_actors import control, starts
from django_actors.models import ActorCount, FailedStart, Period, WorkerRecord
from tests.ledger import tasks

from .base import ROOT, ProcessCase


class OperationsCase(ProcessCase):
    def heartbeats(self) -> int:
        return WorkerRecord.objects.count()


class PauseTests(OperationsCase):
    def test_a_paused_queue_rests_over_a_restart_until_it_is_resumed(self):
        supervisor = self.start(processes=2)
        tasks.record.send("before")
        self.wait_for_keys(1)
        control.pause("default", by="ada")
        self.paused_at = time.monotonic()
        self.wait_until(self.is_obeyed, "all workers to leave a message alone", step=0.5)

        tasks.record.send("paused")
        self.stop(supervisor)
        self.start(processes=1)
        self.wait_until(lambda: self.heartbeats() == 1, "the new worker to tell that it lives")
        # What the old workers held comes back when their connections are gone.
        self.wait_until(
            lambda: tuple(self.broker.queue_size("default")) == (1, 0), "one ready message"
        )
        self.assertNotIn("paused", self.times())

        control.resume("default")
        self.wait_until(lambda: self.times()["paused"] == 1, "the message to run")

    def is_obeyed(self) -> bool:
        """Tell whether a message that was sent two seconds after the pause stays where it is."""
        if time.monotonic() < self.paused_at + 2.0:
            return False
        self.broker.flush("default")
        tasks.record.send("probe")
        time.sleep(0.5)
        stays = self.broker.count_ready("default") == 1
        self.broker.flush("default")
        return stays


class HealthTests(OperationsCase):
    def actors(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "testproject" / "manage.py"), "actors", *args]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ACTORS_TEST_POISON": str(self.directory / "poison")}

    def test_health_tells_of_worker_processes_that_die_at_every_start_until_they_live(self):
        self.start(processes=1)
        self.wait_until(self.heartbeats, "the worker to tell that it lives")
        (self.directory / "poison").touch()
        os.kill(self.worker_pids()[-1], signal.SIGKILL)
        self.wait_until(lambda: starts.find_loops("default"), "three deaths in a row")

        told = self.actors("health")

        self.assertEqual(told.returncode, 1)
        self.assertIn("crash-loop: Worker process 0 of runactors", told.stdout)
        self.assertIn("before it was ready; the last one exited with code 7", told.stdout)
        (self.directory / "poison").unlink()
        self.wait_until(lambda: not FailedStart.objects.exists(), "the loop to be forgotten")
        self.wait_until(lambda: self.actors("health").stdout == "ok\n", "health")

    def test_workers_that_are_told_twice_to_stop_take_their_rows_along(self):
        supervisor = self.start(processes=2)
        self.wait_until(lambda: self.heartbeats() == 2, "the workers to tell that they live")
        tasks.work.send_many([("long", 60)] * 2)
        self.wait_for_keys(1, "began")

        supervisor.send_signal(signal.SIGTERM)
        self.wait_until(lambda: "Stopping the worker processes" in self.log(), "the first signal")
        self.assertEqual(self.stop(supervisor), 1)

        self.assertEqual(self.heartbeats(), 0)

    def test_health_tells_of_missing_workers_and_the_last_counts_of_those_that_ended(self):
        tasks.record.send_many([(key,) for key in range(50)])

        before = self.actors("health")

        self.assertEqual((before.returncode, before.stderr), (1, ""))
        self.assertIn("no-worker: 50 messages wait and no worker runs.", before.stdout)
        supervisor = self.start(processes=1)
        self.wait_for_keys(50)
        self.wait_until(self.heartbeats, "the worker to tell that it lives")
        self.assertEqual(self.actors("health").stdout, "ok\n")
        self.assertEqual(json.loads(self.actors("workers", "--json").stdout)[0]["threads"], 8)

        self.stop(supervisor)

        self.assertEqual(self.heartbeats(), 0)
        count = ActorCount.objects.get(period=Period.HOUR, actor_name="ledger.record")
        self.assertEqual((count.succeeded, count.failed), (50, 0))
        self.assertEqual(self.actors("pause", "defualt").returncode, 2)
