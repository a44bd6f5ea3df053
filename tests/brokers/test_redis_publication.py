"""What is published to Redis goes over the wire as redis-py would write it."""

from __future__ import annotations

from typing import Any

import redis
from django.test import SimpleTestCase

from django_actors.brokers.redis_publication import Entry
from django_actors.brokers.redis_scripts import Lane


class EntryTests(SimpleTestCase):
    def test_the_command_is_what_redis_py_would_send(self):
        connection: Any = redis.Connection()
        lane = Lane(b"{namespace:\xc3\xa9}:lanes", "\xe9", -5)
        for body in (b"", b"{}", b"%d %s %%", b"\r\n$4\r\nPING\r\n", bytes(range(256)) * 40):
            entry = Entry(lane, body, b"\r%\n12")
            parts = ("XADD", lane.key, "NOMKSTREAM", "*", "b", body, "t", b"\r%\n12")
            with self.subTest(body[:20]):
                packed = b"".join(connection.pack_command(*parts))

                self.assertEqual(entry.command(), packed)
