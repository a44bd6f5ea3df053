"""The command: its flags, its refusals, and real workers on a small project."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError
from django.test import SimpleTestCase, TestCase

from django_actors.errors import BrokerUnavailable
from django_actors.management.commands import runactors
from django_actors.management.commands._flags import FLAGS, read_flags
from tests.projects import ProjectCase

linux_only = unittest.skipUnless(sys.platform == "linux", "forks on Linux alone")

TERM, HUP, KILL = signal.SIGTERM, signal.SIGHUP, signal.SIGKILL


class FlagTests(SimpleTestCase):
    def read(self, environment=None, **options):
        with mock.patch.dict(os.environ, environment or {}):
            return read_flags(options)

    def assert_refused(self, text, environment=None, **options):
        with self.assertRaisesMessage(CommandError, text) as caught:
            self.read(environment, **options)
        self.assertEqual(caught.exception.returncode, 2)

    def test_the_defaults(self):
        flags = self.read()

        self.assertGreaterEqual(flags.pop("processes"), 1)
        self.assertEqual(
            flags,
            {
                "threads": 8,
                "queues": None,
                "watch": None,
                "pid_file": None,
                "shutdown_timeout": 30_000,
                "max_messages": None,
                "max_memory": None,
                "start_method": "auto",
                "burst": False,
            },
        )

    def test_every_flag_reads_its_environment_variable(self):
        directory = str(Path(__file__).resolve().parent)

        flags = self.read(
            {
                "ACTORS_PROCESSES": "3",
                "ACTORS_THREADS": "4",
                "ACTORS_QUEUES": "mail, default",
                "ACTORS_WATCH": directory,
                "ACTORS_PID_FILE": "workers.pid",
                "ACTORS_SHUTDOWN_TIMEOUT": "5000",
                "ACTORS_MAX_MESSAGES": "100",
                "ACTORS_MAX_MEMORY": "512",
                "ACTORS_START_METHOD": "spawn",
                "ACTORS_BURST": "yes",
            }
        )

        self.assertEqual(
            flags,
            {
                "processes": 3,
                "threads": 4,
                "queues": ["mail", "default"],
                "watch": directory,
                "pid_file": "workers.pid",
                "shutdown_timeout": 5000,
                "max_messages": 100,
                "max_memory": 512,
                "start_method": "spawn",
                "burst": True,
            },
        )

    def test_a_flag_beats_the_environment(self):
        flags = self.read({"ACTORS_THREADS": "4", "ACTORS_QUEUES": "a"}, threads="2", queues="b")

        self.assertEqual((flags["threads"], flags["queues"]), (2, ["b"]))

    def test_an_empty_variable_is_no_variable(self):
        self.assertEqual(self.read({"ACTORS_THREADS": ""})["threads"], 8)

    def test_call_command_may_pass_numbers_and_lists(self):
        flags = self.read(threads=3, queues=["a", "b"], burst=True)

        self.assertEqual((flags["threads"], flags["queues"]), (3, ["a", "b"]))
        self.assertTrue(flags["burst"])

    def test_a_bad_value_names_where_it_came_from(self):
        self.assert_refused("--threads must be a whole number from 1, not '0'.", threads="0")
        self.assert_refused("--processes must be a whole number from 1, not 'x'.", processes="x")
        self.assert_refused(
            "ACTORS_MAX_MEMORY must be a whole number from 1, not '1.5'.",
            {"ACTORS_MAX_MEMORY": "1.5"},
        )
        self.assert_refused("--queues must be names of queues", queues=" , ")
        self.assert_refused("--watch must be a directory that exists", watch="/no/such/place")
        self.assert_refused(
            "--start-method must be one of auto, spawn, not 'fork'.", start_method="fork"
        )
        self.assert_refused(
            "ACTORS_BURST must be true or false, not 'ture'.", {"ACTORS_BURST": "ture"}
        )

    def test_watching_can_be_switched_by_a_word(self):
        self.assertEqual(self.read({"ACTORS_WATCH": "true"})["watch"], os.getcwd())
        self.assertIsNone(self.read({"ACTORS_WATCH": "0"})["watch"])

    def test_help_names_every_variable(self):
        parser = runactors.Command().create_parser("manage.py", "runactors")

        text = parser.format_help()

        for flag in FLAGS:
            self.assertIn(flag.variable, text)


class QuestionTests(TestCase):
    """What the command asks before it starts anything."""

    def setUp(self):
        self.enterContext(mock.patch.object(runactors, "PATIENCE_S", 0.05))
        self.enterContext(mock.patch.object(runactors, "RETRY_S", 0.01))

    def test_a_broker_that_answers_late_is_waited_for(self):
        ask = mock.Mock(
            side_effect=[BrokerUnavailable("not yet"), OperationalError("nor now"), None]
        )

        runactors.until_it_answers(ask)

        self.assertEqual(ask.call_count, 3)

    def test_no_answer_is_exit_code_three(self):
        ask = mock.Mock(side_effect=BrokerUnavailable("Redis at 127.0.0.1:1 refused."))

        with self.assertRaisesMessage(CommandError, "Redis at 127.0.0.1:1 refused.") as caught:
            runactors.until_it_answers(ask)

        self.assertEqual(caught.exception.returncode, 3)

    def test_migrations_that_were_applied_are_no_obstacle_and_those_of_others_are_not_read(self):
        with mock.patch.object(runactors, "MigrationExecutor") as executor:
            runactors.check_tables()

        executor.assert_not_called()

    def test_migrations_that_are_missing_are_named_with_what_to_do(self):
        target = "django.db.migrations.recorder.MigrationRecorder.applied_migrations"

        refusal = self.assertRaisesMessage(CommandError, "django_actors.0001_initial")
        with mock.patch(target, return_value={}), refusal as caught:
            runactors.check_tables()

        self.assertEqual(caught.exception.returncode, 2)
        self.assertIn("manage.py migrate --database default", str(caught.exception))

    def test_pools_of_connections_are_closed_before_workers_start(self):
        # With their threads, the supervisor could not be copied.
        with_pool = mock.Mock()
        without = mock.Mock(spec=["close"])

        with (
            mock.patch.object(runactors, "get_broker"),
            mock.patch.object(runactors, "connections") as connections,
        ):
            connections.all.return_value = [without, with_pool]
            runactors.let_go()

        with_pool.close_pool.assert_called_once_with()

    def test_a_queue_that_no_actor_uses_is_a_warning_with_the_nearest_name(self):
        with self.assertLogs("django_actors.MainProcess", "WARNING") as logs:
            runactors.warn_of_unknown_queues(["defualt"])

        self.assertIn("No actor uses queue 'defualt'. Did you mean 'default'?", logs.output[0])

    def test_the_command_refuses_before_it_starts_anything(self):
        with self.assertRaisesMessage(CommandError, "--threads must be"):
            call_command("runactors", threads="many")


class WorkingTests(ProjectCase):
    def test_a_message_runs_and_what_it_prints_is_seen_at_once(self):
        self.run_one()

        self.send("greet.send('Ada')")

        self.wait_for_log("Hello, Ada")

    def test_log_lines_name_time_process_thread_logger_and_level(self):
        process = self.run_one()

        start = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] "
        main = rf"\[PID {process.pid}\] \[MainThread\] \[django_actors\.MainProcess\] \[INFO\] "
        self.assertRegex(self.log(), start + main + r"Django Actors '.+' is booting up\.")
        worker = r"\[PID \d+\] \[MainThread\] \[django_actors\.WorkerProcess\(0\)\] \[INFO\] "
        self.assertRegex(self.log(), start + worker + r"Worker process is ready for action\.")

    def test_burst_runs_everything_and_ends(self):
        self.send("greet.send_many([('Ada',), ('Grace',), ('Edith',)])")

        process = self.run_actors("--processes", 2, "--burst")

        self.assertEqual(self.wait_for_end(process), 0)
        self.assertEqual(len(self.journal()), 3)

    def test_a_message_whose_worker_was_killed_runs_again_within_a_second(self):
        self.run_actors("--processes", 2, "--threads", 2)
        self.wait_for_log("ready for action", 2)
        self.send("nap.send(2)")
        self.wait_for_note("begin")

        os.kill(int(self.journal()[0].split()[1]), KILL)

        self.assertLess(self.wait_for_note("begin", 2), 1.0)

    def test_a_process_that_uses_too_much_memory_is_replaced(self):
        self.run_one("--max-memory", 150)

        self.send("eat.send(200)")

        self.wait_for_log("(max_memory)")
        self.wait_for_log("ready for action", 2)
        self.wait_for_death(self.worker_pids()[0])

    def test_a_memory_limit_that_nothing_fits_in_is_said_and_ignored(self):
        self.run_one("--max-memory", 1)

        self.send("greet.send('Ada')")

        self.wait_for_log("so --max-memory 1 is ignored")
        self.wait_for_note("old Ada")

    def test_a_process_with_a_stuck_thread_is_replaced(self):
        self.run_one()

        self.send("block.send()")

        self.wait_for_log("(stuck)")
        self.wait_for_log("ready for action", 2)
        self.assertLess(self.wait_for_death(self.worker_pids()[0]), 5.0)

    def test_a_reader_that_goes_away_stops_nobody(self):
        reader, writer = os.pipe()
        process = self.start(writer, "--processes", 1)
        os.close(writer)
        while b"ready for action" not in os.read(reader, 65_536):
            pass

        os.close(reader)
        self.send("[greet.send(name) for name in 'abc']")
        self.wait_for_note("old", 3)
        self.send("[greet.send(name) for name in 'def']")

        self.wait_for_note("old", 6)
        self.assertEqual(len({line.split()[-1] for line in self.journal()}), 1)
        process.send_signal(TERM)
        self.assertEqual(self.wait_for_end(process), 0)


class StartMethodTests(ProjectCase):
    def started(self, *flags):
        """Return the supervisor's words for the start of a worker process."""
        self.run_one("-v2", *flags)
        [how] = re.findall(r"Worker process 0 was (.+) with PID", self.log())
        return how

    @linux_only
    def test_a_worker_is_a_copy_of_the_supervisor_but_is_shown_as_a_worker(self):
        self.assertEqual(self.started(), "forked")

        [pid] = self.worker_pids()
        shown = Path(f"/proc/{pid}/cmdline").read_text()
        self.assertIn("django_actors.process", shown)
        self.assertNotIn("runactors", shown)

    @linux_only
    def test_a_thread_that_the_project_starts_at_import_means_a_new_interpreter(self):
        with self.tasks.open("a") as tasks:
            tasks.write("\nimport threading\nwait = threading.Event().wait\n")
            tasks.write("threading.Thread(target=wait, name='Meter', daemon=True).start()\n")

        self.assertEqual(self.started(), "spawned (there are other threads: Meter)")

        self.send("greet.send('Ada')")
        self.wait_for_note("old Ada")

    def test_copies_can_be_switched_off(self):
        self.assertEqual(self.started("--start-method", "spawn"), "spawned")

        self.send("greet.send('Ada')")
        self.wait_for_note("old Ada")

    def test_a_copy_is_recycled_by_a_copy(self):
        self.run_one("-v2", "--max-messages", 1)

        self.send("greet.send('Ada')")

        self.wait_for_log("Worker process is ready", 2)
        self.wait_for_log("Worker process 0 was", 2)
        self.assertEqual(len(set(re.findall(r"Worker process 0 was (\w+)", self.log()))), 1)


class StoppingTests(ProjectCase):
    def test_sigterm_lets_a_running_actor_finish(self):
        process = self.run_one()
        self.send("nap.send(1)")
        self.wait_for_note("begin")

        process.send_signal(TERM)

        self.assertEqual(self.wait_for_end(process), 0)
        self.assertTrue(self.journal()[-1].startswith("end"))

    def test_an_actor_that_does_not_finish_in_time_is_given_back(self):
        process = self.run_one("--shutdown-timeout", 100)
        self.send("nap.send(1)")
        self.wait_for_note("begin")

        process.send_signal(TERM)

        self.assertEqual(self.wait_for_end(process), 0)
        self.run_one()
        self.wait_for_note("begin", 2)

    def test_a_second_sigterm_ends_within_two_seconds_and_gives_back_what_ran(self):
        process = self.run_one()
        self.send("nap.send(30)")
        self.wait_for_note("begin")
        process.send_signal(TERM)
        self.wait_for_log("Stopping the worker processes")

        second_at = time.monotonic()
        process.send_signal(TERM)

        self.assertEqual(self.wait_for_end(process), 1)
        self.assertLess(time.monotonic() - second_at, 2.0)
        self.run_one()
        self.assertLess(self.wait_for_note("begin", 2), 2.0)

    def test_workers_do_not_survive_their_supervisor(self):
        process = self.run_one()
        self.send("nap.send(60)")
        self.wait_for_note("begin")

        process.kill()

        self.assertLess(self.wait_for_death(self.worker_pids()[0]), 5.0)

    def test_idle_workers_end_at_once_with_their_supervisor(self):
        process = self.run_one()

        process.kill()

        self.assertLess(self.wait_for_death(self.worker_pids()[0]), 2.0)


class ReloadTests(ProjectCase):
    def edit(self, old, new):
        self.tasks.write_text(self.tasks.read_text().replace(old, new))

    def test_an_edit_runs_within_two_seconds(self):
        self.run_one("--watch", self.directory)

        edited_at = time.monotonic()
        self.edit('note("old"', 'note("new"')
        self.wait_for_log("ready for action", 2)

        self.assertLess(time.monotonic() - edited_at, 2.0)
        self.wait_for_death(self.worker_pids()[0])
        self.send("greet.send('Ada')")
        self.wait_for_note("new Ada")

    def test_a_mistake_is_shown_once_the_old_code_goes_on_and_the_next_edit_mends_it(self):
        self.run_one("--watch", self.directory)
        good = self.tasks.read_text()
        self.edit("def greet(name):", "def greet(name:")
        self.wait_for_log("old worker processes go on")
        self.assertEqual(self.log().count("SyntaxError"), 1)

        self.tasks.write_text(good.replace('note("old"', 'note("mended"'))
        self.wait_for_log("ready for action", 2)

        self.wait_for_death(self.worker_pids()[0])
        self.send("greet.send('Ada')")
        self.wait_for_note("mended Ada")

    def test_sighup_runs_the_code_of_now(self):
        process = self.run_one()
        self.edit('note("old"', 'note("new"')

        process.send_signal(HUP)

        self.wait_for_log("All worker processes run the code of now.")
        self.wait_for_death(self.worker_pids()[0])
        self.send("greet.send('Ada')")
        self.wait_for_note("new Ada")


class RefusalTests(ProjectCase):
    def test_a_second_one_with_the_same_pid_file_is_refused(self):
        first = self.run_one("--pid-file", "workers.pid")

        second = self.run_actors("--pid-file", "workers.pid")

        self.assertEqual(self.wait_for_end(second), 4)
        self.assertIn(f"Process {first.pid} runs with the pid file 'workers.pid'", self.log())

    def test_a_pid_file_of_a_process_that_is_gone_is_taken_over(self):
        (self.directory / "workers.pid").write_text(f"{os.getpid()}\n")

        process = self.run_one("--pid-file", "workers.pid")

        self.assertEqual((self.directory / "workers.pid").read_text(), f"{process.pid}\n")
        process.send_signal(TERM)
        self.assertEqual(self.wait_for_end(process), 0)
        self.assertFalse((self.directory / "workers.pid").exists())

    def test_a_database_without_the_tables_is_exit_code_two(self):
        (self.directory / "db.sqlite3").unlink()

        process = self.run_actors()

        self.assertEqual(self.wait_for_end(process), 2)
        self.assertIn("manage.py migrate --database default", self.log())

    def test_code_that_cannot_be_imported_is_exit_code_two(self):
        self.tasks.write_text("this is no Python")

        process = self.run_actors()

        self.assertEqual(self.wait_for_end(process), 2)
        self.assertEqual(self.log().count("SyntaxError"), 1)

    def test_code_that_only_the_workers_cannot_import_is_exit_code_two(self):
        with self.tasks.open("a") as tasks:
            tasks.write("\nimport sys\nif 'runactors' not in sys.argv: import no_such_module\n")

        process = self.run_actors("--processes", 2, "--start-method", "spawn")

        self.assertEqual(self.wait_for_end(process), 2)
        self.assertEqual(self.log().count("No module named 'no_such_module'"), 1)

    def test_settings_without_a_module_are_refused(self):
        with mock.patch.dict(os.environ):
            del os.environ["DJANGO_SETTINGS_MODULE"]
            with self.assertRaisesMessage(CommandError, "Set DJANGO_SETTINGS_MODULE.") as caught:
                runactors.worker_config(read_flags({}), 1)

        self.assertEqual(caught.exception.returncode, 2)

    def test_an_unknown_queue_is_only_a_warning(self):
        self.run_one("--queues", "defualt")

        self.assertIn("No actor uses queue 'defualt'. Did you mean 'default'?", self.log())
