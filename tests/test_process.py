"""What a worker process owes to dead ones, and the small things its main thread knows."""

from __future__ import annotations

import os
import queue
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from django_actors import recoverer
from django_actors.board import Board
from django_actors.channel import Channel, Doorbell
from django_actors.children import describe_exit
from django_actors.memory import resident_megabytes
from django_actors.recoverer import Recoverer

TIMEOUT_S = 10


class RecovererTests(SimpleTestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="django_actors_recoverer_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.recover = self.enterContext(mock.patch("django_actors.recovery.recover"))
        self.enterContext(mock.patch("django_actors.brokers.get_broker"))
        self.enterContext(mock.patch.object(recoverer, "RETRY_S", 0.01))
        self.recovered: queue.Queue[str] = queue.Queue()
        self.recoverer = Recoverer(self.recovered.put)

    def board(self, name="board"):
        path = str(self.directory / name)
        Board.create(path, threads=1).close()
        return path

    def test_a_board_is_recovered_removed_and_told(self):
        path = self.board()

        self.recoverer.add(path, "exited with code 3")

        self.assertEqual(self.recovered.get(timeout=TIMEOUT_S), path)
        self.assertFalse(os.path.exists(path))
        [[_broker, board, detail], _] = self.recover.call_args
        self.assertEqual((board.path, detail), (path, "exited with code 3"))

    def test_what_fails_is_tried_again_and_the_rest_does_not_wait(self):
        first, second = self.board("first"), self.board("second")
        failures = [OSError("The broker is away.")] * 3

        def recover(broker, board, detail):
            if board.path == first and failures:
                raise failures.pop()

        self.recover.side_effect = recover
        with self.assertLogs("django_actors.recovery", "ERROR") as logs:
            self.recoverer.add(first, "exited with code 3")
            self.recoverer.add(second, "exited with code 3")
            self.recoverer.wait_for({first, second}, timeout=TIMEOUT_S)

            order = [self.recovered.get(timeout=TIMEOUT_S) for _ in range(2)]

        self.assertEqual(order, [second, first])
        self.assertEqual(len(logs.records), 1)

    def test_a_board_that_somebody_else_recovered_is_no_error(self):
        path = str(self.directory / "gone")

        with self.assertNoLogs("django_actors.recovery", "ERROR"):
            self.recoverer.add(path, "exited with code 3")
            self.recoverer.wait_for({path}, timeout=TIMEOUT_S)

        self.recover.assert_not_called()

    def test_a_file_that_is_no_board_is_given_up(self):
        path = self.directory / "board"
        path.write_bytes(b"garbage")

        with self.assertLogs("django_actors.recovery", "ERROR"):
            self.recoverer.add(str(path), "exited with code 3")
            self.recoverer.wait_for({str(path)}, timeout=TIMEOUT_S)

        self.recover.assert_not_called()


class ChannelTests(SimpleTestCase):
    def setUp(self):
        left, right = socket.socketpair()
        self.left, self.right = Channel(left), Channel(right)
        self.addCleanup(self.left.close)
        self.addCleanup(self.right.close)

    def test_events_arrive_whole_and_in_order(self):
        for number in range(50):
            self.assertTrue(self.left.send({"event": "told", "text": "x" * number * 10}))

        sizes = [len(event["text"]) for event in self.right.receive()]

        self.assertEqual(sizes, list(range(0, 500, 10)))
        self.assertEqual(self.right.receive(), [])

    def test_who_does_not_listen_makes_nobody_wait(self):
        sent = 0
        while self.left.send({"event": "told"}):
            sent += 1

        self.assertEqual(len(self.right.receive()), sent)
        self.assertTrue(self.left.send({"event": "told"}))

    def test_what_follows_the_first_event_is_kept(self):
        self.left.send({"event": "first"})
        self.left.send({"event": "second"})

        self.assertEqual(self.right.wait(), {"event": "first"})
        self.assertEqual(self.right.receive(), [{"event": "second"}])

    def test_the_end_of_the_other_side_is_noticed(self):
        self.left.send({"event": "last"})
        self.left.close()

        self.assertEqual(self.right.receive(), [{"event": "last"}])
        self.assertTrue(self.right.closed)
        self.assertFalse(self.right.send({"event": "too late"}))

    def test_an_end_before_the_first_event_is_an_error(self):
        self.left.close()

        self.assertRaises(ConnectionError, self.right.wait)

    def test_noise_is_ignored(self):
        self.left._socket.sendall(b'no json\n[1]\n{"event": "ready"}\n')

        self.assertEqual(self.right.receive(), [{"event": "ready"}])


class DoorbellTests(SimpleTestCase):
    def doorbell(self):
        doorbell = Doorbell()
        self.addCleanup(doorbell.close)
        return doorbell

    def test_another_thread_can_end_the_sleep(self):
        doorbell = self.doorbell()
        thread = threading.Timer(0.01, doorbell.ring)
        thread.start()
        start = time.monotonic()

        doorbell.wait([], timeout=TIMEOUT_S)

        self.assertLess(time.monotonic() - start, TIMEOUT_S / 2)
        thread.join()

    def test_a_ring_after_the_end_is_no_error(self):
        doorbell = self.doorbell()
        doorbell.close()

        doorbell.ring()

    def test_signals_end_the_sleep_and_are_kept_in_order(self):
        doorbell = self.doorbell()

        with doorbell.recording([signal.SIGUSR1, signal.SIGUSR2]):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            doorbell.wait([], timeout=TIMEOUT_S)

        self.assertEqual(doorbell.take_signals(), [signal.SIGUSR1, signal.SIGUSR2])
        self.assertEqual(doorbell.take_signals(), [])

    def test_what_was_there_before_comes_back(self):
        before = signal.getsignal(signal.SIGUSR1)

        with self.doorbell().recording([signal.SIGUSR1]):
            self.assertNotEqual(signal.getsignal(signal.SIGUSR1), before)

        self.assertEqual(signal.getsignal(signal.SIGUSR1), before)


class DescriptionTests(SimpleTestCase):
    def test_how_a_process_died_is_said_with_the_name_of_the_signal(self):
        self.assertEqual(describe_exit(3), "exited with code 3")
        self.assertEqual(describe_exit(-9), "was killed by signal 9 (SIGKILL)")
        self.assertEqual(describe_exit(-999), "was killed by signal 999")

    def test_the_memory_of_this_process_is_plausible(self):
        self.assertTrue(5 < resident_megabytes() < 5_000)
