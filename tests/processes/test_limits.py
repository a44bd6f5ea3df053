"""Time limits that no call can hold off."""

from __future__ import annotations

from django_actors.models import WaitingMessage
from tests.ledger import tasks

from .base import ProcessCase


class TimeLimitTests(ProcessCase):
    def environment(self):
        return {**super().environment(), "ACTORS_TEST_GRACE": "1000"}

    def dead_letter(self, message):
        letters = WaitingMessage.objects.filter(message_id=message.message_id, kind="dead")
        self.wait_until(letters.exists, "the dead letter")
        return letters.get()

    def test_a_python_loop_is_interrupted(self):
        self.start(processes=1, threads=2)

        letter = self.dead_letter(tasks.loop.send("endless"))

        began, ended = self.ledger()
        self.assertLess(ended.at - began.at, 0.5 + 1.5)
        self.assertIn("TimeLimitExceeded", letter.error_class)

    def test_a_blocking_call_is_given_up_and_its_process_replaced(self):
        self.start(processes=1, threads=4)
        worker = self.worker_pids()[0]
        tasks.work.send_many([(key, 2.5) for key in range(3)])

        letter = self.dead_letter(tasks.block.send("stuck"))

        self.assertEqual(letter.reason, "time limit not honoured")
        self.wait_for_keys(3)
        self.wait_until(lambda: worker not in self.worker_pids(), "the process to be replaced")
        tasks.record.send("next")
        self.wait_until(lambda: self.times()["next"], "the replacement to work")
        self.assertEqual(set(self.times().values()), {1})

    def test_a_call_that_holds_the_interpreter_is_ended_with_its_process(self):
        self.start(processes=1, threads=2)

        letter = self.dead_letter(tasks.hold_the_gil.send("frozen"))

        self.assertEqual(letter.reason, "time limit not honoured")
        self.assertEqual(self.times("began")["frozen"], 1)
        tasks.record.send("next")
        self.wait_until(lambda: self.times()["next"], "the replacement to work")
