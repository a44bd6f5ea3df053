"""The supervisor, with toy children: it knows no broker and no model."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from django_actors.board import Board
from tests.toys import ToySupervisorCase

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
RELOAD = RECYCLE = signal.SIGUSR1
END_BY_ITSELF = signal.SIGUSR2


def pids(entries: list[dict[str, Any]]) -> list[int]:
    return [entry["pid"] for entry in entries]


class RestartTests(ToySupervisorCase):
    def test_a_child_that_dies_is_replaced_within_a_second(self):
        self.supervise()
        [first] = self.wait_until_ready()

        killed_at = time.monotonic()
        os.kill(first["pid"], KILL)

        replacement = self.wait_until_ready(2)[1]
        self.assertEqual(replacement["index"], first["index"])
        self.assertLess(replacement["at"] - killed_at, 1.0)
        self.assertIn("was killed by signal 9 (SIGKILL); it is replaced", self.log())

    def test_the_siblings_of_a_dead_child_go_on(self):
        self.supervise(processes=3)
        children = self.wait_until_ready(3)

        os.kill(children[1]["pid"], KILL)

        self.wait_until_ready(4)
        for pid in (children[0]["pid"], children[2]["pid"]):
            os.kill(pid, 0)
        self.assertEqual(self.journal("term"), [])

    def test_a_child_that_cannot_boot_is_tried_again_after_growing_pauses(self):
        self.supervise()
        self.wait_until_ready()
        self.set_mode("fail", 7)

        os.kill(self.journal("ready")[0]["pid"], KILL)

        boots = [entry["at"] for entry in self.wait_for("boot", 4)]
        self.assertGreater(boots[2] - boots[1], 1.0)
        self.assertGreater(boots[3] - boots[2], 2.0)

    def test_a_child_that_was_ready_once_begins_with_short_pauses_again(self):
        self.supervise()
        [first] = self.wait_until_ready()
        self.set_mode("fail", 7)
        os.kill(first["pid"], KILL)
        self.wait_for("boot", 2)

        self.set_mode("work")

        second = self.wait_until_ready(2)[1]
        self.set_mode("fail", 7)
        os.kill(second["pid"], KILL)
        self.wait_for_log("trying again in 1 s", 2)

    def test_a_command_that_does_not_exist_is_an_error_in_the_log(self):
        supervisor = self.supervise()
        self.wait_until_ready()

        # The program is gone, as in the middle of a deploy.
        (self.directory / "toy.py").rename(self.directory / "gone.py")
        os.kill(self.journal("ready")[0]["pid"], KILL)
        self.wait_for_log("before it was ready; trying again")

        (self.directory / "gone.py").rename(self.directory / "toy.py")
        self.wait_until_ready(2)
        self.assertIsNone(supervisor.poll())


class StartTests(ToySupervisorCase):
    def test_who_listens_hears_of_each_death_before_a_child_is_ready_and_of_the_end(self):
        self.supervise(listen=True)
        [first] = self.wait_until_ready()
        self.set_mode("fail", 7)
        os.kill(first["pid"], KILL)
        self.wait_for_log("failed 0 2 exited with code 7: import.")

        self.set_mode("work")

        self.wait_until_ready(2)
        self.wait_for_log("started 0", 2)


class DeadBoardTests(ToySupervisorCase):
    def test_the_replacement_gets_the_board_and_how_its_worker_died(self):
        self.set_mode("run", 600)
        self.supervise()
        [first] = self.wait_until_ready()

        os.kill(first["pid"], signal.SIGSEGV)

        [[path, detail]] = self.wait_for("boot", 2)[1]["config"]["dead_boards"]
        self.assertEqual(path, self.journal("boot")[0]["config"]["board"])
        self.assertEqual(detail, "was killed by signal 11 (SIGSEGV)")
        [running] = Board.open(path).running()
        self.assertEqual(running.message_id, f"message-{first['pid']}")

    def test_a_living_sibling_gets_the_board_at_once(self):
        self.set_mode("run", 600)
        self.supervise(processes=2)
        first, second = self.wait_until_ready(2)

        killed_at = time.monotonic()
        os.kill(first["pid"], KILL)

        [told] = self.wait_for("told")
        self.assertEqual(told["pid"], second["pid"])
        self.assertEqual(told["detail"], "was killed by signal 9 (SIGKILL)")
        self.assertLess(told["at"] - killed_at, 1.0)

    def test_a_board_that_was_not_recovered_is_passed_on(self):
        self.set_mode("run", 600)
        self.supervise()
        [first] = self.wait_until_ready()
        os.kill(first["pid"], KILL)
        second = self.wait_until_ready(2)[1]

        os.kill(second["pid"], KILL)

        boots = self.wait_for("boot", 3)
        boards = [boot["config"]["board"] for boot in boots]
        passed_on = [path for path, _detail in boots[2]["config"]["dead_boards"]]
        self.assertCountEqual(passed_on, boards[:2])

    def test_a_recovered_board_is_forgotten(self):
        self.set_mode("run", 600, "recover")
        self.supervise()
        [first] = self.wait_until_ready()
        os.kill(first["pid"], KILL)
        second = self.wait_until_ready(2)[1]
        recovered = Path(self.journal("boot")[0]["config"]["board"])
        self.wait_until(lambda: not recovered.exists(), "the removal of the board")

        os.kill(second["pid"], KILL)

        third = self.wait_for("boot", 3)[2]
        [[path, _detail]] = third["config"]["dead_boards"]
        self.assertEqual(path, self.journal("boot")[1]["config"]["board"])

    def test_a_child_without_an_owner_leaves_nothing_to_recover(self):
        self.supervise()
        [first] = self.wait_until_ready()

        os.kill(first["pid"], KILL)

        self.assertEqual(self.wait_for("boot", 2)[1]["config"]["dead_boards"], [])

    def test_a_child_that_was_stopped_on_request_blames_no_message(self):
        self.set_mode("stubborn", "run", 600)
        self.supervise(limits={"stop": 0.2})
        [first] = self.wait_until_ready()

        os.kill(first["pid"], RECYCLE)

        [told] = self.wait_for("told")
        self.assertEqual(told["detail"], "was killed because it did not stop in time")
        board = Board.open(told["board"])
        self.assertEqual((board.running(), board.owner), ([], f"toy-{first['pid']}"))

    def test_the_boards_are_removed_at_the_end(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)
        [boot, _] = self.journal("boot")
        directory = Path(boot["config"]["board"]).parent
        self.assertTrue(directory.exists())

        supervisor.send_signal(TERM)

        self.wait_for_end(supervisor)
        self.assertFalse(directory.exists())


class DeadlineTests(ToySupervisorCase):
    limits = {"grace": 0.1, "patience": 0.2}

    def test_a_child_that_does_not_end_an_overdue_message_is_killed(self):
        self.set_mode("run", 0.1)
        self.supervise(limits=self.limits)
        [first] = self.wait_until_ready()
        self.set_mode("work")

        second = self.wait_for("boot", 2)[1]

        [[path, detail]] = second["config"]["dead_boards"]
        self.assertEqual(detail, "was killed because a time limit was not honored")
        [running] = Board.open(path).running()
        self.assertTrue(running.overdue)
        self.assertIn(f"does not end overdue message message-{first['pid']}", self.log())

    def test_a_message_within_its_limit_is_left_alone(self):
        self.set_mode("run", 600)
        self.supervise(processes=2, limits=self.limits)
        self.wait_until_ready(2)

        # Another child's end shows that the boards were looked at.
        self.set_mode("run", 0.1)
        os.kill(self.journal("ready")[0]["pid"], KILL)
        self.wait_for_log("overdue message")

        os.kill(self.journal("ready")[1]["pid"], 0)


class StopTests(ToySupervisorCase):
    def test_sigterm_and_sigint_stop_all_children_gracefully(self):
        for signum in (TERM, INT):
            with self.subTest(signum=signum):
                before = len(self.journal("ready")), len(self.journal("term"))
                supervisor = self.supervise(processes=2)
                self.wait_until_ready(before[0] + 2)

                supervisor.send_signal(signum)

                self.assertEqual(self.wait_for_end(supervisor), 0)
                self.assertEqual(len(self.journal("term")), before[1] + 2)

    def test_ctrl_c_reaches_the_children_once_through_the_supervisor(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)

        os.killpg(supervisor.pid, INT)

        self.assertEqual(self.wait_for_end(supervisor), 0)
        self.assertEqual(len(self.journal("term")), 2)

    def test_ctrl_c_does_not_hurt_a_child_that_has_only_just_started(self):
        self.set_mode("slow")
        self.supervise()
        [child] = self.wait_for("started")

        os.kill(child["pid"], INT)

        self.assertEqual(pids(self.wait_until_ready()), [child["pid"]])
        self.assertNotIn("KeyboardInterrupt", self.log())

    def test_a_child_that_does_not_stop_is_killed(self):
        self.set_mode("stubborn")
        supervisor = self.supervise(limits={"stop": 0.3})
        self.wait_until_ready()

        supervisor.send_signal(TERM)

        self.assertEqual(self.wait_for_end(supervisor), 0)
        self.assertIn("it did not stop in time", self.log())

    def test_a_second_signal_ends_everything_within_two_seconds(self):
        self.set_mode("stubborn")
        supervisor = self.supervise(processes=2)
        children = self.wait_until_ready(2)
        supervisor.send_signal(TERM)
        self.wait_for("term", 2)

        second_at = time.monotonic()
        supervisor.send_signal(TERM)

        self.assertEqual(self.wait_for_end(supervisor), 1)
        self.assertLess(time.monotonic() - second_at, 2.0)
        for child in children:
            self.assertRaises(ProcessLookupError, os.kill, child["pid"], 0)

    def test_nothing_is_started_while_all_are_stopping(self):
        self.set_mode("stubborn")
        supervisor = self.supervise(processes=2, limits={"stop": 0.5})
        children = self.wait_until_ready(2)
        supervisor.send_signal(TERM)
        self.wait_for("term", 2)

        os.kill(children[0]["pid"], KILL)
        supervisor.send_signal(HUP)

        self.assertEqual(self.wait_for_end(supervisor), 0)
        self.assertEqual(len(self.journal("boot")), 2)

    def test_the_end_of_the_supervisor_is_the_end_of_the_stream(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)

        supervisor.kill()

        self.wait_for("orphan", 2)


class RollingReloadTests(ToySupervisorCase):
    def test_sighup_replaces_the_children_one_by_one_without_a_gap(self):
        supervisor = self.supervise(processes=3)
        old = pids(self.wait_until_ready(3))

        supervisor.send_signal(HUP)

        self.wait_for("term", 3)
        story = [(entry["what"], entry["pid"] in old) for entry in self.journal("ready", "term")]
        self.assertEqual(story[3:], [("ready", False), ("term", True)] * 3)
        self.assertIsNone(supervisor.poll())

    def test_code_that_does_not_boot_leaves_the_old_children_at_work(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)
        self.set_mode("fail", 2)

        supervisor.send_signal(HUP)

        self.wait_for_log("The new code could not boot. 2 old worker processes go on.")
        self.assertEqual(self.log().count("It does not\nimport."), 1)
        self.assertEqual((len(self.journal("boot")), self.journal("term")), (3, []))

    def test_a_reload_after_one_that_failed_works(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)
        self.set_mode("fail", 2)
        supervisor.send_signal(HUP)
        self.wait_for_log("go on")
        self.set_mode("work")

        supervisor.send_signal(HUP)

        self.wait_for("term", 2)
        self.wait_for_log("All worker processes run the code of now.")

    def test_a_later_child_that_does_not_boot_at_once_is_tried_again(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)
        # The second new child does not boot at once, though the first one did.
        (self.directory / "toy.py").write_text(
            (self.directory / "toy.py")
            .read_text()
            .replace('"fail" in mode', 'config["index"] == 1 and "fail" in mode')
        )
        self.set_mode("fail", 2)

        supervisor.send_signal(HUP)

        self.wait_for_log("before it was ready; trying again")
        self.set_mode("work")
        self.wait_for("term", 2)

    def test_a_child_that_dies_during_a_reload_is_replaced_too(self):
        supervisor = self.supervise(processes=2)
        old = self.wait_until_ready(2)
        self.set_mode("hang")
        supervisor.send_signal(HUP)
        self.wait_for("boot", 3)
        self.set_mode("work")

        os.kill(old[1]["pid"], KILL)

        self.wait_until_ready(3)


class SwiftReloadTests(ToySupervisorCase):
    def test_nothing_stops_before_the_first_new_child_is_ready(self):
        supervisor = self.supervise(processes=3)
        old = pids(self.wait_until_ready(3))

        supervisor.send_signal(RELOAD)

        self.wait_until_ready(6)
        self.wait_for("term", 3)
        story = [(entry["what"], entry["pid"] in old) for entry in self.journal("ready", "term")]
        self.assertEqual(story[3], ("ready", False))
        self.assertEqual(len(self.journal("boot")), 6)

    def test_the_others_are_replaced_together(self):
        supervisor = self.supervise(processes=3)
        self.wait_until_ready(3)
        supervisor.send_signal(RELOAD)
        self.wait_for("boot", 4)

        # Whoever boots after the first new child is never ready, so nobody waits for it.
        self.set_mode("hang")

        self.wait_for("term", 3)
        self.wait_for("boot", 6)

    def test_a_mistake_is_shown_once_and_the_next_edit_mends_it(self):
        supervisor = self.supervise(processes=2, watching=True)
        self.wait_until_ready(2)
        self.set_mode("fail", 2)
        supervisor.send_signal(RELOAD)
        self.wait_for_log("old worker processes go on")
        self.assertEqual(self.log().count("It does not\nimport."), 1)
        self.set_mode("work")

        supervisor.send_signal(RELOAD)

        self.wait_until_ready(4)
        self.wait_for("term", 2)

    def test_an_edit_during_a_reload_starts_the_new_child_anew(self):
        supervisor = self.supervise(processes=2)
        self.wait_until_ready(2)
        self.set_mode("hang")
        supervisor.send_signal(RELOAD)
        hanging = self.wait_for("boot", 3)[2]
        self.set_mode("work")

        supervisor.send_signal(RELOAD)

        self.wait_until_ready(4)
        self.wait_for("term", 2)
        self.wait_until(lambda: not is_alive(hanging["pid"]), "the end of the hanging child")
        self.assertNotIn("go on", self.log())


class RecycleTests(ToySupervisorCase):
    def test_a_child_that_wants_out_stops_when_its_successor_is_ready(self):
        self.supervise()
        [old] = self.wait_until_ready()

        os.kill(old["pid"], RECYCLE)

        self.wait_for("term")
        story = [(entry["what"], entry["pid"] == old["pid"]) for entry in self.journal()]
        self.assertEqual(story[2:], [("boot", False), ("ready", False), ("term", True)])
        self.assertIn("(test)", self.log())

    def test_a_successor_that_does_not_boot_is_tried_again(self):
        self.supervise()
        [old] = self.wait_until_ready()
        self.set_mode("fail", 2)
        os.kill(old["pid"], RECYCLE)
        self.wait_for_log("trying again")
        self.assertEqual(self.journal("term"), [])

        self.set_mode("work")

        self.wait_for("term")
        self.assertEqual(len(self.journal("ready")), 2)


class BurstTests(ToySupervisorCase):
    def test_the_supervisor_ends_when_all_children_have_ended_by_themselves(self):
        supervisor = self.supervise(processes=2, burst=True)

        for child in self.wait_until_ready(2):
            os.kill(child["pid"], END_BY_ITSELF)

        self.assertEqual(self.wait_for_end(supervisor), 0)
        self.assertEqual(len(self.journal("boot")), 2)

    def test_a_child_that_died_is_replaced_in_a_burst(self):
        supervisor = self.supervise(burst=True)
        os.kill(self.wait_until_ready()[0]["pid"], KILL)

        os.kill(self.wait_until_ready(2)[1]["pid"], END_BY_ITSELF)

        self.assertEqual(self.wait_for_end(supervisor), 0)

    def test_a_burst_is_not_over_before_dead_boards_are_recovered(self):
        self.set_mode("run", 600)
        supervisor = self.supervise(processes=2, burst=True)
        first, second = self.wait_until_ready(2)
        # Neither the sibling nor the replacement recovers anything.
        self.set_mode("work")
        os.kill(first["pid"], KILL)
        told = self.wait_for("told")[0]
        self.wait_until_ready(3)

        self.set_mode("work", "recover")
        for child in self.journal("ready")[1:]:
            os.kill(child["pid"], END_BY_ITSELF)

        last = self.wait_for("boot", 4)[3]
        self.assertIn(told["board"], [path for path, _ in last["config"]["dead_boards"]])
        os.kill(self.wait_until_ready(4)[3]["pid"], END_BY_ITSELF)
        self.assertEqual(self.wait_for_end(supervisor), 0)


class FirstBootTests(ToySupervisorCase):
    def test_children_that_cannot_be_imported_end_the_supervisor_with_two(self):
        self.set_mode("fail", 2)

        supervisor = self.supervise(processes=3)

        self.assertEqual(self.wait_for_end(supervisor), 2)
        self.assertEqual(self.log().count("It does not\nimport."), 1)

    def test_a_broker_that_cannot_be_reached_ends_it_with_three(self):
        self.set_mode("fail", 3)

        self.assertEqual(self.wait_for_end(self.supervise()), 3)

    def test_while_watching_the_next_edit_may_mend_it(self):
        self.set_mode("fail", 2)
        supervisor = self.supervise(processes=2, watching=True)
        self.wait_for("boot", 2)
        self.wait_for_log("trying again", 2)
        self.set_mode("work")

        supervisor.send_signal(RELOAD)

        self.wait_until_ready(2)

    def test_another_failure_is_tried_again(self):
        self.set_mode("fail", 7)
        supervisor = self.supervise()
        self.wait_for_log("trying again")

        self.set_mode("work")

        self.wait_until_ready()
        self.assertIsNone(supervisor.poll())

    def test_a_child_finds_the_modules_of_its_parent(self):
        self.supervise()

        [boot] = self.wait_for("boot")

        self.assertEqual(boot["path"], os.pathsep.join(boot["config"]["sys_path"]))
        self.assertEqual(boot["config"]["pythonpath"], os.environ.get("PYTHONPATH"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
