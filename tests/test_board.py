"""The board, read after whatever happened to its writer."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from django_actors import board
from django_actors.board import Board, BoardError, board_directory

ROOT = Path(__file__).resolve().parent.parent

# Writes ids of one repeated letter, as fast as it can, until it is killed.
BUSY_WRITER = """
import sys, time
from django_actors.board import Board

board = Board.open(sys.argv[1])
texts = [letter * 60 for letter in "abcdefghij"]
print("go", flush=True)
while True:
    for number, text in enumerate(texts):
        board.begin(number % 2, text, 1.0 + number)
        board.end(number % 2, text)
"""


class BoardCase(SimpleTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_board_")
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name, "board"))

    def create(self, threads=4, receipts=8):
        board = Board.create(self.path, threads=threads, receipts=receipts)
        self.addCleanup(board.close)
        return board

    def open(self):
        board = Board.open(self.path)
        self.addCleanup(board.close)
        return board


class SlotTests(BoardCase):
    def test_a_new_board_is_empty(self):
        board = self.create()

        self.assertEqual((board.running(), board.receipts(), board.owner), ([], [], ""))

    def test_what_one_process_begins_another_one_sees(self):
        writer, reader = self.create(), self.open()
        before = time.monotonic()

        writer.begin(2, "message-1", deadline=before + 60)

        [running] = reader.running()
        self.assertEqual((running.slot, running.message_id), (2, "message-1"))
        self.assertEqual((running.deadline, running.overdue), (before + 60, False))
        self.assertTrue(before <= running.began_at <= time.monotonic())

    def test_a_message_without_time_limit_has_no_deadline(self):
        board = self.create()

        board.begin(0, "message-1", None)

        self.assertIsNone(board.running()[0].deadline)

    def test_an_ended_message_is_gone(self):
        board = self.create()
        board.begin(0, "message-1", None)
        board.begin(1, "message-2", None)

        board.end(0)

        self.assertEqual([run.message_id for run in board.running()], ["message-2"])

    def test_a_deadline_can_be_extended_and_taken_away(self):
        board = self.create()
        board.begin(0, "message-1", 10.0)

        board.extend(0, 20.0)
        self.assertEqual(board.running()[0].deadline, 20.0)

        board.extend(0, None)
        self.assertIsNone(board.running()[0].deadline)

    def test_the_mark_of_an_overdue_message_does_not_stay_for_the_next_one(self):
        writer, supervisor = self.create(), self.open()
        writer.begin(1, "message-1", 10.0)

        supervisor.mark_overdue(1)
        self.assertTrue(writer.running()[0].overdue)

        writer.end(1)
        writer.begin(1, "message-2", 10.0)
        self.assertFalse(writer.running()[0].overdue)

    def test_an_id_may_have_64_characters_and_no_more(self):
        board = self.create()

        board.begin(0, "x" * 64, None)
        self.assertEqual(board.running()[0].message_id, "x" * 64)

        with self.assertRaisesMessage(BoardError, "has 65 characters; a board takes 64"):
            board.begin(1, "x" * 65, None)
        self.assertEqual(len(board.running()), 1)


class ReceiptTests(BoardCase):
    def test_receipts_come_back_oldest_first(self):
        board = self.create(receipts=8)

        for number in range(5):
            board.end(0, f"receipt-{number}")

        self.assertEqual(self.open().receipts(), [f"receipt-{number}" for number in range(5)])

    def test_the_ring_keeps_the_last_ones(self):
        board = self.create(receipts=8)

        for number in range(20):
            board.end(0, f"receipt-{number}")

        self.assertEqual(board.receipts(), [f"receipt-{number}" for number in range(12, 20)])

    def test_threads_never_overwrite_each_other(self):
        board = self.create(threads=4, receipts=400)

        def write(slot):
            for number in range(100):
                board.end(slot, f"{slot}-{number}")

        threads = [threading.Thread(target=write, args=(slot,)) for slot in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        everything = [f"{slot}-{number}" for slot in range(4) for number in range(100)]
        self.assertCountEqual(board.receipts(), everything)


class FileTests(BoardCase):
    def test_the_owner_is_told_once_it_is_known(self):
        writer, reader = self.create(), self.open()

        writer.owner = "host-1234-5678"

        self.assertEqual(reader.owner, "host-1234-5678")

    def test_the_file_has_no_holes_that_a_full_disk_could_not_fill(self):
        self.create(threads=64, receipts=256)

        stat = Path(self.path).stat()

        self.assertGreaterEqual(stat.st_blocks * 512, stat.st_size)

    def test_a_file_that_exists_is_not_overwritten(self):
        self.create()

        self.assertRaises(FileExistsError, Board.create, self.path, threads=1)

    def test_what_is_not_a_board_is_refused(self):
        self.assertRaises(FileNotFoundError, Board.open, self.path)
        for content in (b"", b"x", b"x" * 10_000):
            with self.subTest(size=len(content)):
                Path(self.path).write_bytes(content)

                self.assertRaises(BoardError, Board.open, self.path)

    def test_an_unlinked_board_can_still_be_read(self):
        board = self.create()
        board.begin(0, "message-1", None)

        board.unlink()
        board.unlink()

        self.assertEqual(len(board.running()), 1)
        self.assertFalse(Path(self.path).exists())


class DirectoryTests(SimpleTestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="django_actors_place_")
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        self.enterContext(mock.patch.object(board, "memory_directory", lambda: place.name))

    def test_it_lasts_as_long_as_the_block(self):
        with board_directory() as directory:
            Board.create(Path(directory, "board-1"), threads=1).close()

        self.assertEqual(list(self.place.iterdir()), [])

    def test_one_in_use_is_left_alone(self):
        with board_directory() as first:
            age(first)
            with board_directory():
                self.assertTrue(os.path.exists(first))

    def test_one_whose_supervisor_was_killed_is_removed_by_the_next(self):
        code = (
            "import os, sys\n"
            "from django_actors import board\n"
            "board.memory_directory = lambda: sys.argv[1]\n"
            "directory = board.board_directory()\n"
            "directory.__enter__()\n"
            "os._exit(1)"
        )
        subprocess.run([sys.executable, "-c", code, str(self.place)], cwd=ROOT)
        [left] = self.place.iterdir()
        age(left)

        with board_directory():
            self.assertFalse(left.exists())

    def test_one_that_is_just_being_made_is_left_alone(self):
        new = self.place / "django_actors-new"
        new.mkdir()
        (new / "lock").touch()

        with board_directory():
            self.assertTrue(new.exists())

    def test_what_others_keep_there_is_none_of_our_business(self):
        (self.place / "django_actors-x").touch()
        (self.place / "other").mkdir()

        with board_directory():
            pass

        self.assertEqual(len(list(self.place.iterdir())), 2)


def age(directory):
    """Make a directory of boards look as if it were made an hour ago."""
    an_hour_ago = time.time() - 3600
    os.utime(Path(directory, "lock"), (an_hour_ago, an_hour_ago))


class KilledWriterTests(BoardCase):
    def test_a_writer_killed_at_any_moment_never_leaves_half_a_text(self):
        for _ in range(8):
            board = self.create(threads=2, receipts=16)
            writer = self.start_writer()
            self.read_while_it_writes(board, seconds=random.uniform(0.0, 0.05))

            writer.kill()
            writer.wait()

            for text in [run.message_id for run in board.running()] + board.receipts():
                self.assertRegex(text, r"^([a-j])\1{59}$")
            board.unlink()

    def start_writer(self):
        writer = subprocess.Popen(
            [sys.executable, "-c", BUSY_WRITER, self.path], cwd=ROOT, stdout=subprocess.PIPE
        )
        self.addCleanup(writer.kill)
        assert writer.stdout
        with writer.stdout:
            self.assertEqual(writer.stdout.readline(), b"go\n")
        return writer

    def read_while_it_writes(self, board, seconds):
        """Read for a random while; every reading has an id and a deadline that belong together."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for run in board.running():
                self.assertEqual(run.message_id, "abcdefghij"[int(run.deadline) - 1] * 60)
