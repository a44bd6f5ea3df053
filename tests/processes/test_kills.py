"""What is left when processes are killed: everything."""

from __future__ import annotations

import os
import signal
import time

from django_actors.models import CrashRecord, Lease, WaitingMessage
from tests.ledger import tasks
from tests.projects import is_alive

from .base import ProcessCase


class KilledWorkerTests(ProcessCase):
    def test_no_message_is_lost_and_only_running_ones_run_twice(self):
        count, threads = 1_000, 8
        self.start(processes=2, threads=threads)
        tasks.work.send_many([(key, 0.02) for key in range(count)])

        for kill in range(3):
            self.wait_for_keys(150 * (kill + 1))
            os.kill(self.worker_pids()[0], signal.SIGKILL)

        self.wait_for_keys(count)
        self.wait_until_settled()
        twice = [key for key, times in self.times("began").items() if times > 1]
        self.assertEqual(len(self.times()), count)
        self.assertLessEqual(len(twice), 3 * threads)

    def test_its_replacement_and_its_messages_are_back_soon(self):
        self.start(processes=1, threads=4)
        tasks.work.send_many([(key, 0.6) for key in range(12)])
        self.wait_for_keys(4, "began")
        victim = self.worker_pids()[0]

        os.kill(victim, signal.SIGKILL)
        killed_at = time.time()
        self.wait_until(
            lambda: any(entry.pid != victim for entry in self.ledger("began")),
            "another process to run something",
        )

        again = min(entry.at for entry in self.ledger("began") if entry.pid != victim)
        self.assertLess(again - killed_at, 5)
        self.wait_for_keys(12)

    def test_its_siblings_go_on(self):
        self.start(processes=2, threads=2)
        tasks.work.send_many([(key, 0.05) for key in range(100)])
        self.wait_for_keys(10)
        victim, sibling = self.worker_pids()

        os.kill(victim, signal.SIGKILL)
        self.wait_for_keys(100)

        self.assertTrue(is_alive(sibling))

    def test_messages_that_only_waited_in_it_are_not_blamed(self):
        # Short ones first: only then does a worker claim ahead.
        tasks.forget.send_many([()] * 2_000)
        tasks.work.send("running", 5)
        tasks.record.send_many([(key,) for key in range(20)])
        self.start(processes=1, threads=1)
        self.wait_for_keys(1, "began")

        os.kill(self.worker_pids()[0], signal.SIGKILL)
        self.wait_until(CrashRecord.objects.exists, "the crash to be counted")

        self.assertEqual(CrashRecord.objects.count(), 1)
        self.wait_for_keys(21)


class KilledSupervisorTests(ProcessCase):
    def expire_claims(self):
        """Have the claims of the dead run out now."""
        Lease.objects.update(expires_ms=0)

    def test_its_workers_end_and_their_claims_come_back_by_lease(self):
        supervisor = self.start(processes=2, threads=2)
        tasks.work.send_many([(key, 3_000) for key in range(4)])
        self.wait_for_keys(4, "began")
        workers = self.worker_pids()

        supervisor.kill()
        took = self.wait_until(
            lambda: not any(map(is_alive, workers)), "the workers to end", timeout=10
        )

        self.assertLess(took, 5)
        self.expire_claims()
        self.start(processes=1, threads=4)
        self.wait_until(lambda: len(self.ledger("began")) == 8, "all to begin again")


class PoisonTests(ProcessCase):
    def test_a_message_that_ends_its_process_is_a_dead_letter_after_three_deaths(self):
        self.check(tasks.exit_process.message("poison", 7), "exited with code 7")

    def test_a_message_that_crashes_its_process_is_a_dead_letter_after_three_deaths(self):
        self.check(tasks.crash.message("poison"), "SIGSEGV")

    def test_of_many_processes_it_ends_exactly_three(self):
        # More than it may end at once: the next one is there before any death was counted.
        for _ in range(2):
            self.start(processes=3, threads=1)
        poisons = [tasks.exit_process.message(key, 7) for key in ("first", "second")]

        self.broker.enqueue_many(poisons)

        letters = WaitingMessage.objects.filter(kind="dead")
        self.wait_until(lambda: letters.count() == 2, "the dead letters")
        self.wait_until_settled()
        self.assertEqual(self.times("began"), {"first": 3, "second": 3})

    def check(self, poison, how):
        self.start(processes=1, threads=4)
        tasks.work.send_many([(key, 0.2) for key in range(8)])
        self.broker.enqueue(poison)
        tasks.work.send_many([(key, 0.2) for key in range(8, 40)])

        letters = WaitingMessage.objects.filter(kind="dead")
        self.wait_until(letters.exists, "the dead letter")
        self.wait_for_keys(40)
        self.wait_until_settled()

        letter = letters.get()
        self.assertEqual(letter.message_id, poison.message_id)
        self.assertEqual(letter.reason, "killed its worker")
        self.assertIn(how, letter.error)
        self.assertEqual(self.times("began")["poison"], 3)
