"""Children that are copies of their parent: when that is safe, and what they do not share."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import signal
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from django_actors import forking, logs
from django_actors.channel import Doorbell
from django_actors.forking import ForkedProcess, fork, show_as, undone_in_children, why_not
from django_actors.message import generate_message_id
from django_actors.pidfile import pid_file
from django_actors.process import leave
from tests import test_supervisor
from tests.toys import TIMEOUT_S, ToySupervisorCase

linux_only = unittest.skipUnless(sys.platform == "linux", "forks on Linux alone")


class GuardTests(SimpleTestCase):
    def setUp(self):
        # Those that the test run has are not what this is about.
        known = set(threading.enumerate()) - {threading.current_thread()}
        enumerate_all = threading.enumerate
        self.enterContext(
            mock.patch.object(
                threading,
                "enumerate",
                lambda: [thread for thread in enumerate_all() if thread not in known],
            )
        )
        self.tasks = ["1"]
        self.enterContext(mock.patch.object(sys, "platform", "linux"))
        self.enterContext(mock.patch.object(os, "listdir", lambda path: self.tasks))
        self.enterContext(mock.patch.object(forking, "LAST_STEPS_S", 0))

    def test_a_process_with_one_thread_may_fork(self):
        self.assertEqual(why_not(), "")

    def test_a_thread_stands_against_it_and_is_named(self):
        over = threading.Event()
        thread = threading.Thread(target=over.wait, name="Statistics")
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(over.set)

        self.assertEqual(why_not(), "there are other threads: Statistics")

    def test_a_thread_that_python_does_not_know_stands_against_it(self):
        self.tasks = ["1", "2"]

        self.assertEqual(why_not(), "a library has threads that Python does not know")

    def test_the_thread_that_writes_the_log_ends_before(self):
        self.assertEqual(why_not(), "")
        with mock.patch.object(logs, "rest", return_value=False):
            self.assertEqual(why_not(), "nobody reads the log")

    def test_no_other_system_forks(self):
        with mock.patch.object(sys, "platform", "darwin"):
            self.assertIn("only Linux", why_not())


@linux_only
class ForkCase(SimpleTestCase):
    def setUp(self):
        self.addCleanup(gc.unfreeze)
        # What a child has to say of its errors is no failure of the test run.
        self.enterContext(mock.patch.object(forking, "traceback"))

    def fork(self, run: Callable[[], object]) -> ForkedProcess:
        def live() -> None:
            signal.alarm(TIMEOUT_S)
            run()

        child = fork(live)
        self.addCleanup(self.end, child)
        return child

    def end(self, child: ForkedProcess) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        self.exit_code(child)

    def exit_code(self, child: ForkedProcess) -> int:
        if child.poll() is None:
            # It only waits: the code is there for poll().
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        code = child.poll()
        assert code is not None
        return code

    def ask(self, question: Callable[[], object]) -> object:
        """Return what a child answers."""
        reader, writer = os.pipe()

        def answer() -> None:
            os.write(writer, json.dumps(question()).encode())
            os._exit(0)

        child = self.fork(answer)
        os.close(writer)
        with open(reader) as file:
            text = file.read()
        self.assertEqual(self.exit_code(child), 0)
        return json.loads(text)


class ForkTests(ForkCase):
    def test_the_exit_code_is_that_of_the_child(self):
        self.assertEqual(self.exit_code(self.fork(lambda: os._exit(7))), 7)

    def test_a_signal_that_ended_it_is_told_as_a_negative_number(self):
        child = self.fork(signal.pause)
        self.assertIsNone(child.poll())

        child.kill()

        self.assertEqual(self.exit_code(child), -signal.SIGKILL)

    def test_who_is_gone_is_sent_nothing(self):
        child = self.fork(lambda: os._exit(0))
        self.exit_code(child)

        with mock.patch.object(os, "kill") as kill:
            child.terminate()

        kill.assert_not_called()

    def test_an_end_that_somebody_else_was_told_of_is_one_that_failed(self):
        child = self.fork(lambda: os._exit(0))
        os.waitpid(child.pid, 0)

        self.assertEqual(child.poll(), forking.CRASHED)

    def test_an_error_ends_the_child_and_never_returns_to_its_parents_code(self):
        def fail() -> None:
            raise SystemExit(5)

        for body in (fail, lambda: None):
            with self.subTest(body=body):
                self.assertEqual(self.exit_code(self.fork(body)), forking.CRASHED)

    def test_a_signal_that_comes_at_once_is_not_lost_in_what_the_parent_records(self):
        doorbell = Doorbell()
        self.addCleanup(doorbell.close)
        with doorbell.recording([signal.SIGTERM]):
            child = self.fork(signal.pause)
            child.terminate()

            self.assertEqual(self.exit_code(child), -signal.SIGTERM)

    def test_the_parent_hears_its_signals_as_before(self):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

        self.exit_code(self.fork(lambda: os._exit(0)))

        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), before)

    def test_what_is_the_parents_alone_is_undone_in_the_child_the_last_first(self):
        done: list[str] = []
        with undone_in_children(lambda: done.append("first")):
            with undone_in_children(lambda: done.append("second")):
                told = self.ask(lambda: done)

            self.assertEqual(told, ["second", "first"])
            self.assertEqual(self.ask(lambda: done), ["first"])
        self.assertEqual((done, self.ask(lambda: done)), ([], []))

    def test_the_child_reads_nothing_from_the_terminal(self):
        self.assertEqual(self.ask(lambda: os.readlink("/proc/self/fd/0")), os.devnull)

    def test_what_a_library_of_the_parent_would_remove_at_its_end_outlives_the_child(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_forking_")
        self.addCleanup(directory.cleanup)

        with mock.patch.object(logs, "flush"):
            code = self.exit_code(self.fork(lambda: leave(0, hurried=False)))

        self.assertEqual(code, 0)
        self.assertTrue(Path(directory.name).exists())

    def test_two_children_never_make_the_same_ids(self):
        def draw() -> list[object]:
            return [*(generate_message_id() for _ in range(100)), random.random()]

        first, second = self.ask(draw), self.ask(draw)

        self.assertFalse(set(first) & set(second))  # type: ignore[call-overload]

    def test_others_see_it_as_another_command(self):
        def shown() -> str:
            show_as(["python", "-m", "worker"])
            return Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()

        self.assertEqual(self.ask(shown), "python\0-m\0worker")


class ForkedToys(ToySupervisorCase):
    forks = True


@linux_only
class WayTests(ForkedToys):
    def test_the_first_children_are_copies_and_see_neither_each_other_nor_the_parents_things(self):
        self.supervise(processes=3, pid_file=str(self.directory / "pid"))

        self.wait_until_ready(3)

        self.wait_for_log("was forked with PID", 3)
        for boot in self.journal("boot"):
            # Its control channel, and the lock of the directory that is theirs together.
            self.assertEqual(boot["open"], ["lock", "socket"])

    def test_who_replaces_a_copy_that_died_is_a_copy_too(self):
        self.supervise()
        [first] = self.wait_until_ready()

        os.kill(first["pid"], signal.SIGKILL)

        self.wait_until_ready(2)
        self.wait_for_log("was forked with PID", 2)

    def test_new_code_is_loaded_by_a_new_interpreter(self):
        supervisor = self.supervise()
        self.wait_until_ready()

        supervisor.send_signal(signal.SIGHUP)

        self.wait_until_ready(2)
        self.wait_for_log("was spawned (the code may be another one by now) with PID")

    def test_a_thread_of_the_supervisor_means_new_interpreters(self):
        self.supervise(processes=2, thread=True)

        self.wait_until_ready(2)

        self.wait_for_log("was spawned (there are other threads: Other) with PID", 2)

    def test_a_child_that_lingers_does_not_keep_the_pid_file_of_a_supervisor_that_was_killed(self):
        self.set_mode("linger")
        path = str(self.directory / "pid")
        supervisor = self.supervise(pid_file=path)
        [child] = self.wait_until_ready()

        supervisor.kill()
        supervisor.wait(TIMEOUT_S)
        self.wait_for("orphan")

        with pid_file(path):
            os.kill(child["pid"], 0)


# What holds for children that are programs holds for copies.


@linux_only
class ForkedRestartTests(ForkedToys, test_supervisor.RestartTests):
    pass


@linux_only
class ForkedStartTests(ForkedToys, test_supervisor.StartTests):
    pass


@linux_only
class ForkedDeadBoardTests(ForkedToys, test_supervisor.DeadBoardTests):
    pass


@linux_only
class ForkedDeadlineTests(ForkedToys, test_supervisor.DeadlineTests):
    pass


@linux_only
class ForkedStopTests(ForkedToys, test_supervisor.StopTests):
    pass


@linux_only
class ForkedRollingReloadTests(ForkedToys, test_supervisor.RollingReloadTests):
    pass


@linux_only
class ForkedRecycleTests(ForkedToys, test_supervisor.RecycleTests):
    pass


@linux_only
class ForkedBurstTests(ForkedToys, test_supervisor.BurstTests):
    pass


@linux_only
class ForkedFirstBootTests(ForkedToys, test_supervisor.FirstBootTests):
    # There is no need to look for modules that are there.
    test_a_child_finds_the_modules_of_its_parent = None  # type: ignore[assignment]
