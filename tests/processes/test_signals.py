"""How workers stop and reload."""

from __future__ import annotations

import signal
import time

from tests.ledger import tasks

from .base import ProcessCase


class StopTests(ProcessCase):
    def test_what_runs_is_finished_and_the_rest_goes_back(self):
        worker = self.start(processes=1, threads=2)
        tasks.work.send_many([(key, 1.5) for key in range(8)])
        self.wait_for_keys(2, "began")

        code = self.stop(worker)

        self.assertEqual(code, 0)
        self.assertEqual(len(self.times()), 2)
        self.assertEqual(self.broker.queue_size("default"), (6, 0))

    def test_ctrl_c_stops_like_a_signal_from_a_service_manager(self):
        worker = self.start(processes=2, threads=2)

        self.assertEqual(self.stop(worker, signal.SIGINT), 0)

    def test_the_second_signal_ends_at_once_and_loses_nothing(self):
        worker = self.start(processes=2, threads=2)
        tasks.work.send_many([(key, 60) for key in range(6)])
        self.wait_for_keys(4, "began")

        worker.send_signal(signal.SIGTERM)
        self.wait_until(lambda: "Stopping the worker processes" in self.log(), "the first signal")
        asked_at = time.monotonic()
        code = self.stop(worker)

        self.assertEqual(code, 1)
        self.assertLess(time.monotonic() - asked_at, 2)
        self.assertEqual(sum(self.broker.queue_size("default")), 6)

    def test_an_actor_that_outlives_the_shutdown_timeout_is_given_back(self):
        worker = self.start("--shutdown-timeout=500", processes=1, threads=2)
        tasks.work.send("long", 60)
        self.wait_for_keys(1, "began")

        self.stop(worker)

        self.assertEqual(self.broker.queue_size("default"), (1, 0))


class ReloadTests(ProcessCase):
    def test_nothing_is_lost_doubled_or_held_up(self):
        worker = self.start(processes=2, threads=4)
        old = set(self.worker_pids())
        tasks.work.send_many([(key, 0.02) for key in range(1_500)])
        self.wait_for_keys(100)

        worker.send_signal(signal.SIGHUP)
        self.wait_until(
            lambda: len(self.worker_pids()) == 2 and not old & set(self.worker_pids()),
            "new processes",
        )
        self.wait_for_keys(1_500)
        self.wait_until_settled()

        self.assertEqual(set(self.times().values()), {1})
        moments = sorted(entry.at for entry in self.ledger("ran"))
        gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
        self.assertLess(max(gaps), 0.5)
