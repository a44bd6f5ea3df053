"""Logging that neither waits nor fails, whatever its reader does."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings
from unittest import mock

from django.test import SimpleTestCase

from django_actors import logs
from django_actors.logs import PatientHandler, UnbreakableStream


class Refusing(io.StringIO):
    """A stream that refuses what is written to it, until it is mended."""

    broken = True

    def write(self, text):
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)

    def flush(self):
        if self.broken:
            raise OSError(28, "No space left on device")


class HandlerCase(SimpleTestCase):
    def logger_to(self, stream):
        self.handler = PatientHandler(stream)
        logger = logging.Logger("test")
        logger.addHandler(self.handler)
        return logger


class PatientHandlerTests(HandlerCase):
    def test_lines_are_written_in_order(self):
        stream = io.StringIO()
        logger = self.logger_to(stream)

        for number in range(100):
            logger.info("line %d", number)
        self.handler.flush()

        self.assertEqual(stream.getvalue().split("\n")[:-1], [f"line {n}" for n in range(100)])

    def test_what_was_refused_is_counted_and_told_later(self):
        stream = Refusing()
        logger = self.logger_to(stream)
        logger.info("one")
        logger.info("two")
        self.handler.flush()
        stream.broken = False

        logger.info("three")
        self.handler.flush()

        self.assertEqual(
            stream.getvalue(), "(2 log lines before this one could not be written.)\nthree\n"
        )

    def test_a_full_pipe_holds_up_nobody(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        stream = os.fdopen(writer, "w")
        logger = self.logger_to(stream)

        with mock.patch.object(logs, "BACKLOG", 50):
            for _ in range(200):
                logger.info("x" * 10_000)

        logger.info("last words")
        text = b""
        while b"last words" not in text:
            text += os.read(reader, 1_000_000)
        self.assertIn(b"could not be written", text)
        self.handler.flush()
        stream.close()

    def test_a_record_that_cannot_be_formatted_is_no_error_of_the_caller(self):
        stream = io.StringIO()
        logger = self.logger_to(stream)

        with mock.patch.object(sys, "stderr", io.StringIO()):
            logger.info("%d", "not a number")
            logger.info("next")
        self.handler.flush()

        self.assertEqual(stream.getvalue(), "next\n")

    def test_a_filter_is_heard(self):
        stream = io.StringIO()
        logger = self.logger_to(stream)
        self.handler.addFilter(lambda record: "secret" not in record.msg)

        logger.info("a secret")
        logger.info("no harm")
        self.handler.flush()

        self.assertEqual(stream.getvalue(), "no harm\n")

    def test_a_lock_that_is_never_given_back_silences_nobody(self):
        stream = io.StringIO()
        logger = self.logger_to(stream)
        self.addCleanup(self.handler.createLock)  # the end of the interpreter asks for it
        thread = threading.Thread(target=self.handler.acquire)
        thread.start()
        thread.join()

        logger.info("still here")
        self.handler.flush()

        self.assertEqual(stream.getvalue(), "still here\n")

    def test_the_thread_that_writes_can_end_until_there_is_another_line(self):
        stream = io.StringIO()
        logger = self.logger_to(stream)
        logger.info("one")

        self.assertTrue(self.handler.rest())

        self.assertEqual(stream.getvalue(), "one\n")
        self.assertFalse(self.handler._writer.is_alive())
        self.assertTrue(self.handler.rest())
        logger.info("two")
        self.handler.flush()
        self.assertEqual(stream.getvalue(), "one\ntwo\n")

    def test_a_thread_that_its_reader_holds_up_cannot_end_and_loses_nothing(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        stream = os.fdopen(writer, "w")
        self.addCleanup(stream.close)
        logger = self.logger_to(stream)
        for _ in range(100):
            logger.info("x" * 1_023)

        with mock.patch.object(logs, "REST_S", 0.01):
            self.assertFalse(self.handler.rest())

        logger.info("last")
        read = b""
        while not read.endswith(b"last\n"):
            read += os.read(reader, 65_536)
        self.assertEqual(len(read), 100 * 1_024 + 5)

    def test_a_forked_process_logs_too(self):
        reader, writer = os.pipe()
        stream = os.fdopen(writer, "w")
        logger = self.logger_to(stream)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is about forks with threads, as this one is
            pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            logger.info("from the child")
            self.handler.flush()
            os._exit(0)

        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.assertEqual(os.read(reader, 100), b"from the child\n")
        os.close(reader)
        stream.close()


class SetupTests(SimpleTestCase):
    def setUp(self):
        self.logger = logging.Logger("django_actors")
        self.root = logging.Logger("root")
        loggers = {"django_actors": self.logger, None: self.root}
        get_logger = mock.patch("logging.getLogger", lambda name=None: loggers[name])
        self.enterContext(get_logger)
        self.logger.setLevel(logging.NOTSET)

    def test_the_engine_shows_its_lines_when_nobody_else_does(self):
        logs.setup(1)

        [handler] = self.logger.handlers
        self.assertIsInstance(handler, PatientHandler)

    def test_handlers_of_the_project_are_left_alone(self):
        for logger in (self.logger, self.root):
            with self.subTest(logger=logger.name):
                handler = logging.NullHandler()
                logger.addHandler(handler)

                logs.setup(1)

                self.assertEqual(self.logger.handlers + self.root.handlers, [handler])
                logger.removeHandler(handler)

    def test_the_level_follows_the_verbosity(self):
        levels = [logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG]
        for verbosity, level in enumerate(levels):
            with self.subTest(verbosity=verbosity):
                self.logger.setLevel(logging.NOTSET)

                logs.setup(verbosity)

                self.assertEqual(self.logger.level, level)

    def test_a_level_of_the_project_is_left_alone(self):
        self.logger.setLevel(logging.ERROR)

        logs.setup(2)

        self.assertEqual(self.logger.level, logging.ERROR)


class OutputTests(SimpleTestCase):
    def test_a_print_to_a_broken_stream_is_no_error(self):
        stream = UnbreakableStream(Refusing())

        print("nobody listens", file=stream, flush=True)
        stream.writelines(["neither", "here"])

    def test_lines_of_several_threads_do_not_run_into_one_another(self):
        inner = io.StringIO()
        stream = UnbreakableStream(inner)

        def talk(name):
            for _ in range(200):
                print(name, name, name, file=stream)

        threads = [threading.Thread(target=talk, args=(letter * 50,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        lines = inner.getvalue().splitlines()
        self.assertEqual(len(lines), 800)
        for line in lines:
            self.assertEqual(line, " ".join([line[0] * 50] * 3))

    def test_a_line_that_is_not_ended_comes_with_a_flush_or_its_length(self):
        inner = io.StringIO()
        stream = UnbreakableStream(inner)

        print("progress", end="", file=stream)
        self.assertEqual(inner.getvalue(), "")

        stream.flush()
        self.assertEqual(inner.getvalue(), "progress")

        print("x" * 10_000, end="", file=stream)
        self.assertEqual(len(inner.getvalue()), len("progress") + 10_000)

    def test_everything_else_is_the_streams_own(self):
        stream = UnbreakableStream(io.StringIO())

        print("hello", file=stream)

        self.assertEqual(stream.getvalue(), "hello\n")
        self.assertFalse(stream.isatty())

    def test_both_outputs_are_protected_once(self):
        with mock.patch.multiple(sys, stdout=io.StringIO(), stderr=None):
            logs.protect_output()
            protected = sys.stdout
            logs.protect_output()

            self.assertIsInstance(protected, UnbreakableStream)
            self.assertIs(sys.stdout, protected)
            self.assertIsNone(sys.stderr)
