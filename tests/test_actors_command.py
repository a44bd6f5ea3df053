"""``manage.py actors``: what it says, what it does, and how it answers a typo."""

from __future__ import annotations

import io
import json
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.db import OperationalError

from django_actors import control, pauses
from django_actors.errors import BrokerUnavailable
from django_actors.management.commands._asking import read_duration, read_time
from django_actors.management.commands._tables import duration, plain, table
from django_actors.models import DeadLetter, ScheduledMessage
from tests.admin.cases import bury, bury_bytes, retry, wait
from tests.control.cases import ALIAS, ControlCase, greet


class CommandCase(ControlCase):
    def run_command(self, *args: str, code: int = 0, **options: Any) -> str:
        out = io.StringIO()
        self.errors = io.StringIO()
        try:
            call_command("actors", *args, stdout=out, stderr=self.errors, **options)
        except SystemExit as exit:
            self.assertEqual(exit.code, code)
        else:
            self.assertEqual(code, 0)
        return out.getvalue()

    def json(self, *args: str, code: int = 0) -> Any:
        return json.loads(self.run_command(*args, "--json", code=code))

    def refuse(self, *args: str) -> str:
        with self.assertRaises(CommandError) as caught:
            self.run_command(*args)
        return str(caught.exception)


class LookingTests(CommandCase):
    def test_queues(self):
        self.send(3)
        pauses.pause("mail", by="ada", alias=ALIAS)
        self.count(succeeded=9, failed=1)

        text = self.run_command("queues")
        mail = next(each for each in self.json("queues") if each["name"] == "mail")

        line = next(line for line in text.splitlines() if line.startswith("mail"))
        self.assertEqual(line.split()[:5], ["mail", "3", "0", "0", "0"])
        self.assertIn("10.0%", line)
        self.assertTrue(line.endswith("paused by ada"))
        self.assertEqual((mail["ready"], mail["paused"], mail["failure_rate"]), (3, True, 0.1))

    def test_queues_of_a_broker_that_is_down(self):
        with mock.patch.object(self.broker, "ping", side_effect=BrokerUnavailable("away")):
            self.run_command("queues")

        self.assertIn("The broker does not answer: away", self.errors.getvalue())

    def test_workers(self):
        run = {"message_id": "1", "actor_name": "greet", "queue_name": "q", "since_ms": 1}
        self.have_worker("mail", running=[run])

        self.assertIn("mars:7 runs greet 1 for ", self.run_command("workers"))
        self.assertEqual(self.json("workers")[0]["queues"], ["mail"])

    def test_actors(self):
        self.assertRegex(self.run_command("list"), r"greet\(name, \*, times=1\) +mail")
        self.assertIn("admin_tests.greet", [each["name"] for each in self.json("list")])

    def test_stats(self):
        self.count(succeeded=3, failed=1)

        line = self.run_command("stats", "--hours", "2").splitlines()[1].split()

        self.assertEqual(line, ["admin_tests.greet", "3", "1", "1", "0", "25.0%", "10"])
        self.assertEqual(self.json("stats")["admin_tests.greet"]["failure_rate"], 0.25)

    def test_health_says_what_is_wrong_and_exits_with_1(self):
        self.send(2)

        text = self.run_command("health", code=1)

        self.assertIn("no-worker: 2 messages wait and no worker runs.", text)
        self.assertEqual(self.json("health", code=1)[0]["code"], "no-worker")

    def test_health_exits_with_0_if_all_is_well(self):
        self.have_worker("mail")

        self.assertEqual(self.run_command("health"), "ok\n")
        self.assertEqual(self.json("health"), [])

    def test_the_limits_of_health_are_flags(self):
        bury(greet.message("dead"))

        self.assertEqual(self.run_command("health", "--no-worker-needed"), "ok\n")
        self.run_command("health", "--no-worker-needed", "--dead-letters", "0", code=1)

    def test_a_database_that_does_not_answer_is_no_traceback(self):
        with mock.patch.object(control, "queues", side_effect=OperationalError("away")):
            self.assertIn("does not answer: away", self.refuse("queues"))


class PauseTests(CommandCase):
    def test_a_queue_is_paused_and_resumed(self):
        self.assertIn("is paused", self.run_command("pause", "mail"))
        self.assertIn("was paused already", self.run_command("pause", "mail"))
        self.assertIn("manage.py", pauses.find(ALIAS)["mail"].paused_by)
        self.assertIn("is read again", self.run_command("resume", "mail"))
        self.assertEqual(self.json("resume", "mail"), {"queue": "mail", "changed": False})

    def test_a_misspelled_queue_is_refused_with_the_nearest(self):
        self.assertIn("Did you mean 'mail'?", self.refuse("pause", "mial"))


class DeadLetterTests(CommandCase):
    def test_they_are_listed(self):
        row = bury(greet.message("Ada"), KeyError("x"))

        text = self.run_command("dead", "list")

        self.assertIn(row.message_id, text)
        self.assertIn("KeyError", text)
        self.assertEqual(self.json("dead", "list")[0]["call"], "admin_tests.greet('Ada')")

    def test_the_list_has_an_end(self):
        for number in range(3):
            bury(greet.message(number))

        self.assertEqual(len(self.json("dead", "list", "--limit", "2")), 2)

    def test_one_is_shown_with_its_traceback(self):
        row = bury(greet.message("Ada"), KeyError("x"))

        text = self.run_command("dead", "show", row.message_id)

        self.assertIn("reason: retries exhausted", text)
        self.assertIn("KeyError: 'x'", text)

    def test_one_that_is_not_there_cannot_be_shown(self):
        self.assertIn("'nobody'", self.refuse("dead", "show", "nobody"))

    def test_some_are_requeued_and_what_was_skipped_is_told(self):
        bury(greet.message("Ada"))
        bury_bytes(b"?")

        text = self.run_command("dead", "requeue", "--all", "--delay", "1h", "--progress")

        self.assertEqual(
            text.splitlines(), ["1 requeued", "1 skipped: holds no message that could run"]
        )
        self.assertIn("2 so far", self.errors.getvalue())
        self.assertEqual(ScheduledMessage.objects.count(), 1)

    def test_filters_and_ids_narrow(self):
        row = bury(greet.message("Ada"), KeyError("x"))
        bury(greet.message("Bob"))

        self.assertEqual(self.json("dead", "requeue", row.message_id)["done"], 1)
        self.assertEqual(self.json("dead", "requeue", "--exception", "KeyError")["done"], 0)
        self.assertEqual(self.json("dead", "requeue", "--newer-than", "1h")["done"], 1)

    def test_nobody_requeues_everything_by_accident(self):
        self.assertIn("--all", self.refuse("dead", "requeue"))

    def test_a_name_that_finds_nothing_and_is_misspelled_is_refused_with_the_nearest(self):
        for flag, typo, hint in (
            ("--queue", "mial", "'mail'"),
            ("--actor", "admin_tests.gret", "'admin_tests.greet'"),
            ("--reason", "retries exausted", "'retries exhausted'"),
        ):
            with self.subTest(flag):
                self.assertIn(f"Did you mean {hint}?", self.refuse("dead", "list", flag, typo))

    def test_a_discard_counts_and_asks(self):
        bury(greet.message("Ada"))
        with (
            mock.patch("sys.stdin.isatty", return_value=True, create=True),
            mock.patch("builtins.input", return_value="no"),
        ):
            self.assertEqual(self.refuse("dead", "discard", "--all"), "Nothing was done.")
        self.assertIn("1  admin_tests.greet", self.errors.getvalue())
        self.assertEqual(DeadLetter.objects.count(), 1)

        with (
            mock.patch("sys.stdin.isatty", return_value=True, create=True),
            mock.patch("builtins.input", return_value="yes"),
        ):
            self.assertEqual(self.json("dead", "discard", "--all")["done"], 1)

    def test_a_script_says_yes_itself(self):
        bury(greet.message("Ada"))
        with mock.patch("sys.stdin.isatty", return_value=False, create=True):
            self.assertIn("--yes", self.refuse("dead", "discard", "--all"))

        self.run_command("dead", "discard", "--all", "--yes")

        self.assertEqual(DeadLetter.objects.count(), 0)


class ScheduledTests(CommandCase):
    def test_they_are_listed_and_shown(self):
        row = retry(greet.message("Ada"), 2)

        self.assertIn("retry", self.run_command("scheduled", "list", "--reason", "retry"))
        self.assertIn(row.message_id, self.run_command("scheduled", "show", row.message_id))

    def test_they_run_now_later_or_never(self):
        wait(greet.message("Ada"))

        self.assertEqual(self.run_command("scheduled", "run", "--all"), "1 due now\n")
        self.assertIn("now", self.run_command("scheduled", "list"))
        self.run_command("scheduled", "reschedule", "--all", "--in", "3h")
        self.assertIn("2h", self.run_command("scheduled", "list"))
        self.run_command("scheduled", "reschedule", "--all", "--at", "2099-01-31T12:00")
        self.assertGreater(ScheduledMessage.objects.get().due_ms, 4_000_000_000_000)
        self.run_command("scheduled", "cancel", "--queue", "mail", "--yes")
        self.assertEqual(ScheduledMessage.objects.count(), 0)


class TypoTests(CommandCase):
    def test_a_misspelled_command_is_answered_with_the_nearest(self):
        self.assertIn("Did you mean 'queues'?", self.refuse("queue"))
        self.assertIn("Did you mean 'requeue'?", self.refuse("dead", "requeu"))

    def test_a_duration_has_a_unit(self):
        self.assertEqual([read_duration("90s"), read_duration("2h")], [90_000, 7_200_000])
        self.assertIn("such as 90s", self.refuse("health", "--backlog-age", "5"))

    def test_a_time_is_a_date_and_a_time_of_day(self):
        self.assertEqual(read_time("2030-01-31T12:00").hour, 12)
        for wrong in ("tomorrow", "2030-13-31T12:00"):
            self.assertIn("A time is", self.refuse("scheduled", "reschedule", "--at", wrong))

    def test_a_count_is_a_whole_number(self):
        self.assertIn("A whole number", self.refuse("health", "--dead-letters", "-1"))


class TextTests(CommandCase):
    def test_nothing_that_a_terminal_would_act_upon_is_written(self):
        self.assertEqual(plain("a\x1b[31m\nb\x9b"), "a\\x1b[31m\\x0ab\\x9b")
        self.assertEqual(len(plain("x" * 500)), 100)

    def test_columns_are_aligned(self):
        text = table(("NAME", "COUNT", "END"), [("a", 1, "x"), ("bcdef", 1_000, None)], numbers=1)

        self.assertEqual(text, "NAME   COUNT  END\na          1  x\nbcdef   1000  -")

    def test_a_duration_is_told_in_its_largest_unit(self):
        self.assertEqual(
            [duration(ms) for ms in (None, 900, 90_000, 7_200_000, 10**9)],
            ["-", "0s", "1m", "2h", "11d"],
        )
