"""The RabbitMQ broker on servers of its own: encrypted."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from urllib.parse import quote

import trustme
from django.test import tag

from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.errors import BrokerUnavailable
from tests.engine import EngineCase, wait_until
from tests.rabbitmq_server import PROGRAM, RabbitmqServer
from tests.redis_server import free_port


@tag("processes")
@unittest.skipUnless(PROGRAM, "needs the program rabbitmq-server")
class EncryptedTests(EngineCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        directory = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        authority = trustme.CA()
        cls.ca, cls.pem = directory / "ca.pem", directory / "server.pem"
        authority.cert_pem.write_to_path(cls.ca)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cls.pem)
        cls.port = free_port()
        server = RabbitmqServer(
            f"listeners.ssl.1 = 127.0.0.1:{cls.port}",
            f"ssl_options.cacertfile = {cls.ca}",
            f"ssl_options.certfile = {cls.pem}",
            f"ssl_options.keyfile = {cls.pem}",
        )
        cls.addClassCleanup(server.close)
        server.start()

    ca: Path
    pem: Path
    port: int

    def make_broker(self, query: str) -> RabbitmqBroker:
        broker = RabbitmqBroker(f"amqps://guest:guest@localhost:{self.port}/%2F{query}")
        self.addCleanup(broker.close)
        return broker

    def trusting(self) -> str:
        return "?ssl_options=" + quote(repr({"cafile": str(self.ca)}))

    def test_messages_travel_encrypted_to_a_server_that_is_trusted(self) -> None:
        ran: list[str] = []
        broker = self.use(self.make_broker(self.trusting()))
        self.start_worker(broker)

        self.declare(ran.append, actor_name="note").send("Ada")

        wait_until(lambda: ran == ["Ada"])

    def test_a_server_nobody_vouches_for_is_an_error_that_says_so(self) -> None:
        broker = self.make_broker("")

        with self.assertRaisesRegex(BrokerUnavailable, "certificate"):
            broker.ping()
