"""What workers do when nothing goes wrong."""

from __future__ import annotations

import os
import statistics
import time

from django_actors.models import WaitingMessage
from tests.ledger import tasks

from .base import ProcessCase

# Heavy cases have a size for every day; ACTORS_TEST_SCALE makes them as large as they matter.
SCALE = int(os.environ.get("ACTORS_TEST_SCALE", "1"))


class WorkTests(ProcessCase):
    def test_two_runactors_run_every_message_once(self):
        count = 3_000 * SCALE
        self.start(processes=2)
        self.start(processes=2)

        for first in range(0, count, 500):
            tasks.record.send_many([(key,) for key in range(first, first + 500)])

        self.wait_for_keys(count)
        self.wait_until_settled()
        self.assertEqual(set(self.times().values()), {1})
        self.assertEqual(WaitingMessage.objects.count(), 0)

    def test_the_most_urgent_message_overtakes_a_long_backlog(self):
        tasks.low.send_many([(key, 0.02) for key in range(2_000 * SCALE)])
        self.start(processes=1, threads=4)
        self.wait_for_keys(20, "began")

        sent_at = time.time()
        tasks.high.send("urgent")
        self.wait_until(lambda: self.times("began")["urgent"], "the urgent message to begin")

        urgent = next(entry for entry in self.ledger("began") if entry.key == "urgent")
        overtook = [e for e in self.ledger("began") if sent_at < e.at < urgent.at]
        # What threads had already been given, or took while the claim was under way.
        self.assertLess(len(overtook), 20)
        self.assertLess(urgent.at - sent_at, 0.3)

    def test_due_messages_start_in_time(self):
        self.start(processes=2)
        start_ms = int(time.time() * 1_000) + 1_000
        calls = []
        for key in range(600):
            due_ms = start_ms + key * 5
            calls.append(tasks.late.message_with_options(args=(key, due_ms), eta=due_ms))

        tasks.late.send_many(calls)

        self.wait_until(lambda: len(self.ledger("ran")) >= 600, "all to run", step=0.05)
        lateness = sorted(int(entry.key.split(":")[1]) for entry in self.ledger("ran"))
        self.assertGreaterEqual(lateness[0], 0)
        self.assertLess(lateness[int(len(lateness) * 0.99)], 1_000)

    def test_far_messages_are_in_nobody_s_way(self):
        day_ms = 86_400_000
        eta = int(time.time() * 1_000) + day_ms
        count = 1_000 * SCALE
        far = [tasks.forget.message_with_options(eta=eta) for _ in range(count)]
        tasks.forget.send_many(far)

        self.start(processes=1)
        tasks.record.send_many([(key,) for key in range(100)])
        self.wait_for_keys(100)

        self.wait_until_settled()
        self.assertEqual(WaitingMessage.objects.count(), count)
        self.assertEqual(self.broker.queue_size("default"), (0, 0))

    def test_an_idle_worker_starts_a_message_soon(self):
        self.start(processes=2)
        delays = []
        for key in range(30):
            sent_at = time.time()
            tasks.record.send(key)
            self.wait_for_keys(key + 1)
            delays.append(self.ledger("ran")[-1].at - sent_at)

        self.assertLess(statistics.median(delays), 0.1)

    def test_a_burst_ends_when_nothing_is_left(self):
        tasks.record.send_many([(key,) for key in range(100)])

        worker = self.start("--burst", processes=2)

        self.assertEqual(worker.wait(30), 0)
        self.assertEqual(len(self.times()), 100)

    def test_a_failing_message_is_retried_and_then_kept_as_dead_letter(self):
        self.start(processes=1)

        message = tasks.fail.send("poor")

        letters = WaitingMessage.objects.filter(message_id=message.message_id, kind="dead")
        self.wait_until(letters.exists, "the dead letter")
        self.assertEqual(self.times("failed")["poor"], 4)
        letter = letters.get()
        self.assertEqual(letter.reason, "retries exhausted")
        self.assertEqual(letter.attempts, 4)
        self.assertIn("always fails", letter.error)
