"""Messages and confirmations as they lie in the bytes between RabbitMQ and us."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.test import SimpleTestCase
from pika import frame, spec

from django_actors.brokers.rabbitmq_connection import Connection
from django_actors.brokers.rabbitmq_frames import (
    NO_PROPERTIES,
    NotAllThere,
    read_confirmation,
    read_message,
    write_message,
    write_properties,
)

BODY = b'{"queue_name":"default"}'


HEADERS = {"x-delivery-count": 2}


def deliver(
    tag: int = 7,
    *,
    channel: int = 3,
    fragments: tuple[bytes, ...] = (BODY,),
    redelivered: bool = True,
    headers: dict[str, int] | None = HEADERS,
    kind: str | None = None,
) -> bytes:
    """Return the frames of a message of ours, as pika writes them."""
    method = spec.Basic.Deliver("ctag1", tag, redelivered, "", "a-queue")
    properties = spec.BasicProperties(
        delivery_mode=2,
        message_id=f"id {tag}",
        correlation_id=f"number {tag}",
        app_id="an app",
        content_type="application/json",
        headers=headers,
        type=kind,
    )
    frames = (
        frame.Method(channel, method),
        frame.Header(channel, sum(map(len, fragments)), properties),
        *(frame.Body(channel, each) for each in fragments),
    )
    return b"".join(each.marshal() for each in frames)


class ReadingTests(SimpleTestCase):
    def test_it_is_what_pika_makes_of_the_frames(self):
        for redelivered, headers, kind in (
            (True, HEADERS, None),
            (False, None, None),
            (False, None, "row"),
            (True, HEADERS, "row"),
        ):
            with self.subTest(redelivered=redelivered, headers=headers, kind=kind):
                data = deliver(redelivered=redelivered, headers=headers, kind=kind)
                size, method = frame.decode_frame(data)
                _, header = frame.decode_frame(data[size:])

                message = read_message(data, 0)

                assert message is not None
                for name in ("consumer_tag", "delivery_tag", "redelivered"):
                    self.assertEqual(getattr(message.method, name), getattr(method.method, name))
                for name in ("app_id", "correlation_id", "headers", "type"):
                    self.assertEqual(
                        getattr(message.properties, name), getattr(header.properties, name)
                    )
                self.assertEqual((message.channel_number, message.body), (3, BODY))
                self.assertEqual(message.end, len(data))

    def test_it_may_stand_in_the_middle(self):
        first, second = deliver(1), deliver(2)

        message = read_message(first + second + first, len(first))

        assert message is not None
        self.assertEqual(message.delivery_tag, 2)
        self.assertEqual(message.end, len(first + second))

    def test_one_that_is_not_all_there_is_none_yet(self):
        data = deliver()

        for size in range(len(data)):
            with self.subTest(size=size):
                self.assertIsNone(self.read_part(data[:size]))

    def read_part(self, data: bytes) -> object:
        with suppress(NotAllThere):
            return read_message(data, 0)
        return None

    def test_one_without_a_body_need_not_wait_for_what_comes_next(self):
        self.assertIsNone(read_message(deliver(fragments=()), 0))

    def test_other_frames_are_left_to_pika(self):
        for name, data in (
            ("an answer", frame.Method(3, spec.Basic.QosOk()).marshal() + deliver()),
            ("a heartbeat", frame.Heartbeat().marshal() + deliver()),
            ("a long body", deliver(fragments=(BODY, BODY))),
            ("no body", deliver(fragments=())),
            ("a returned message", deliver().replace(b"\0\x3c\0\x3c", b"\0\x3c\0\x32", 1)),
            ("a broken end", deliver()[:-1] + b"\0"),
            ("two channels", deliver()[: -8 - len(BODY)] + frame.Body(4, BODY).marshal()),
        ):
            with self.subTest(name):
                self.assertIsNone(read_message(data + deliver(), 0))


def confirm(tag: int, *, multiple: bool = False, channel: int = 3) -> bytes:
    """Return the frame of a confirmation, as pika writes it."""
    data: bytes = frame.Method(channel, spec.Basic.Ack(tag, multiple)).marshal()
    return data


class ConfirmationTests(SimpleTestCase):
    def test_it_says_which_messages_are_meant(self):
        for tag, multiple in ((1, False), (2**40, True)):
            with self.subTest(tag=tag):
                data = confirm(tag, multiple=multiple)

                self.assertEqual(
                    read_confirmation(b"abc" + data, 3), (3, tag, multiple, 3 + len(data))
                )

    def test_one_that_is_not_all_there_is_none_yet(self):
        data = confirm(7)

        for size in range(len(data)):
            with self.subTest(size=size):
                self.assertIsNone(self.read_part(data[:size]))

    def read_part(self, data: bytes) -> object:
        with suppress(NotAllThere):
            return read_confirmation(data, 0)
        return None

    def test_other_frames_are_none(self):
        for name, data in (
            ("a refusal", frame.Method(3, spec.Basic.Nack(7)).marshal()),
            ("a message", deliver()),
            ("a heartbeat", frame.Heartbeat().marshal()),
            ("a broken end", confirm(7)[:-1] + b"\0"),
        ):
            with self.subTest(name):
                self.assertIsNone(read_confirmation(data + confirm(7), 0))


class WritingTests(SimpleTestCase):
    def write(self, properties: bytes, body: bytes, *, longest: int = 100) -> bytes:
        return write_message(
            3, ("an-exchange", "a-queue"), properties, body, mandatory=True, longest=longest
        )

    def test_it_is_what_pika_writes(self):
        for origin in (None, "row"):
            for body, longest in ((BODY, 100), (BODY, 5), (BODY, len(BODY)), (b"", 100)):
                with self.subTest(origin=origin, body=body, longest=longest):
                    properties = spec.BasicProperties(
                        delivery_mode=2,
                        message_id="an id",
                        correlation_id="é 7",
                        app_id="an app",
                        content_type="application/json",
                        type=origin,
                    )
                    parts = (
                        frame.Method(3, spec.Basic.Publish(0, "an-exchange", "a-queue", True)),
                        frame.Header(3, len(body), properties),
                        *(
                            frame.Body(3, body[start : start + longest])
                            for start in range(0, len(body), longest)
                        ),
                    )

                    written = self.write(
                        write_properties("an id", "é 7", origin, "an app"), body, longest=longest
                    )

                    self.assertEqual(written, b"".join(part.marshal() for part in parts))

    def test_it_may_have_no_properties(self):
        header = frame.Header(3, len(BODY), spec.BasicProperties()).marshal()

        self.assertIn(header, self.write(NO_PROPERTIES, BODY))

    def test_a_name_that_does_not_fit_is_refused_where_it_is_written(self):
        with self.assertRaises(ValueError):
            write_properties("x" * 256, "7", None, "an app")


class FakeChannel:
    """Collects the messages that pika hands to a channel, and counts its other frames."""

    def __init__(self) -> None:
        self.tags: list[int] = []
        self.others = 0
        self._whole: list[Any] = []

    def _on_deliver(self, method: Any, header: Any, body: bytes) -> None:
        assert body in (BODY, BODY + BODY), body
        self.tags.append(method.method.delivery_tag)

    def _handle_content_frame(self, each: Any) -> None:
        """Do what pika's channel does with the frames of a message."""
        if isinstance(each, frame.Method) and each.method.INDEX != spec.Basic.Deliver.INDEX:
            self.others += 1
            return
        self._whole.append(each)
        method, *rest = self._whole
        body = b"".join(part.fragment for part in rest[1:])
        if rest and len(body) == rest[0].body_size:
            self._whole = []
            self._on_deliver(method, rest[0], body)


class FakeConnection(Connection):
    """A connection whose bytes come from a test."""

    def __init__(self, channel: FakeChannel) -> None:
        self._frame_buffer = b""
        self._channels = {3: channel}
        self.confirmed = {}
        self.bytes_received = self.frames_received = 0
        self._heartbeat_checker = None

    def _process_callbacks(self, each: Any) -> bool:
        return False


class ReceivingTests(SimpleTestCase):
    def test_messages_come_in_order_wherever_the_bytes_are_cut(self):
        other = frame.Method(3, spec.Basic.QosOk()).marshal()
        data = (
            deliver(1)
            + other
            + deliver(2)
            + deliver(3, fragments=(BODY, BODY))
            + deliver(4)
            + other
        )

        for size in (1, 2, 3, 7, 50, len(deliver()), len(deliver()) + 1, len(data)):
            with self.subTest(size=size):
                channel = FakeChannel()
                connection = FakeConnection(channel)

                for start in range(0, len(data), size):
                    connection._on_data_available(data[start : start + size])

                self.assertEqual((channel.tags, channel.others), ([1, 2, 3, 4], 2))
                self.assertEqual(connection.bytes_received, len(data))
                self.assertEqual(connection.frames_received, 15)

    def test_confirmations_go_to_who_asked_for_them(self):
        data = deliver(1) + confirm(5) + confirm(9, multiple=True) + deliver(2)

        for size in (1, 8, 20, 21, len(data)):
            with self.subTest(size=size):
                channel = FakeChannel()
                connection = FakeConnection(channel)
                heard: list[tuple[int, bool]] = []
                connection.confirmed[3] = lambda *answer, heard=heard: heard.append(answer)

                for start in range(0, len(data), size):
                    connection._on_data_available(data[start : start + size])

                self.assertEqual(heard, [(5, False), (9, True)])
                self.assertEqual((channel.tags, channel.others), ([1, 2], 0))
                self.assertEqual(connection.bytes_received, len(data))
                self.assertEqual(connection.frames_received, 8)

    def test_confirmations_that_nobody_asked_for_are_left_to_pika(self):
        channel = FakeChannel()

        FakeConnection(channel)._on_data_available(confirm(5))

        self.assertEqual(channel.others, 1)
