"""Messages that come once too often wait until every death before they came is counted."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.test import override_settings

from django_actors import roster
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.delivery import Delivery
from django_actors.models import WaitingMessage, WorkerRecord
from tests.engine import begin, envelop, make_message, report, wait_until

from .contract import row_for
from .test_rabbitmq import URL, RabbitmqCase, needs_rabbitmq

ALIAS = "default"


@needs_rabbitmq
class QuarantineTests(RabbitmqCase):
    """``dead`` has died with the message in its hands, and nobody has counted that yet."""

    queue_type = "quorum"

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(RabbitmqBroker(URL, queue_type=self.queue_type))
        self.addCleanup(self.broker.close)
        self.message = make_message("nothing", queue="q")
        self.broker.publish([envelop(self.message)])
        report("dead")

    def consume(self, owner: str) -> Any:
        consumer = self.broker.consume(["q"], owner=owner)
        self.addCleanup(consumer.close)
        return consumer

    def take(self, consumer: Any) -> Delivery:
        delivery: Delivery
        [delivery] = wait_until(lambda: consumer.fetch(1, timeout=1), "the message")
        return delivery

    def be_killed(self, times: int) -> None:
        """Have so many processes take the message, and die."""
        for _ in range(times):
            victim = self.consume("dead")
            self.take(victim)
            victim.drop()

    def wait_until_held(self, consumer: Any) -> None:
        """Wait until the message has come to a consumer, which does not hand it out."""

        def is_held() -> bool:
            self.assertEqual(consumer.fetch(1, timeout=0.1), [])
            return len(consumer._quarantine) == 1

        wait_until(is_held, "the message")

    def test_what_may_have_killed_one_process_does_not_wait(self):
        self.be_killed(1)

        self.assertTrue(self.take(self.consume("survivor")).redelivered)

    def test_what_may_have_killed_two_waits_until_the_dead_is_recovered(self):
        self.be_killed(2)
        survivor = self.consume("survivor")
        self.wait_until_held(survivor)

        roster.leave("dead", ALIAS)

        self.assertTrue(self.take(survivor).redelivered)

    def test_what_waits_here_is_not_published_again_by_its_row(self):
        consumer = self.consume("earlier")
        consumer.ack([self.take(consumer)])
        consumer.close()
        self.broker.waiting_room.put([row_for(self.message)])
        [(_, envelope)] = self.broker.waiting_room.claim_due("dead", limit=1)
        self.broker.publish([envelope])
        self.be_killed(2)

        self.wait_until_held(self.consume("survivor"))

        self.assertFalse(WaitingMessage.objects.exists())

    def test_of_the_first_death_on_where_one_is_the_limit(self):
        self.be_killed(1)

        with override_settings(DJANGO_ACTORS={**settings.DJANGO_ACTORS, "CRASH_LIMIT": 1}):
            self.wait_until_held(self.consume("survivor"))

    def test_a_dead_process_nobody_recovers_is_not_waited_for_without_end(self):
        self.be_killed(2)
        survivor = self.consume("survivor")
        self.wait_until_held(survivor)

        WorkerRecord.objects.update(seen_ms=roster.now_ms(ALIAS) - roster.SILENCE_MS - 1)

        self.take(survivor)

    def test_who_lives_answers_at_once_and_holds_nothing_up(self):
        roster.leave("dead", ALIAS)
        self.be_killed(2)
        report("neighbor")
        neighbor = self.consume("neighbor")
        neighbor.fetch(0, timeout=0)
        survivor = self.consume("survivor")
        began = time.monotonic()

        waiting = begin(self.take, survivor)
        while waiting.is_alive():
            neighbor.fetch(0, timeout=0.05)

        self.assertEqual(Delivery, type(waiting.result()))
        # Less than the five seconds after which it would have reported anyway.
        self.assertLess(time.monotonic() - began, 3)

    def test_what_waits_counts_as_ready(self):
        self.be_killed(2)
        self.wait_until_held(self.consume("survivor"))

        self.assertEqual(tuple(self.broker.queue_size("q")), (1, 0))
        self.assertEqual(self.broker.count_ready("q"), 1)

    def test_it_goes_back_with_a_queue_that_is_not_read_any_more(self):
        self.be_killed(2)
        survivor = self.consume("survivor")
        self.wait_until_held(survivor)

        survivor.set_queues([])
        survivor.fetch(1, timeout=0.1)

        roster.leave("dead", ALIAS)
        self.take(self.consume("other"))

    def test_what_came_on_a_connection_that_is_lost_is_not_handed_out(self):
        self.be_killed(2)
        survivor = self.consume("survivor")
        self.wait_until_held(survivor)
        survivor.drop()
        other = self.consume("other")
        self.wait_until_held(other)

        roster.leave("dead", ALIAS)

        other.ack([self.take(other)])
        self.assertEqual(survivor.fetch(1, timeout=0.3), [])
        self.assertEqual(tuple(self.broker.queue_size("q")), (0, 0))


@needs_rabbitmq
class ClassicQueueTests(QuarantineTests):
    """A classic queue does not count, so the first death is waited for."""

    queue_type = "classic"

    def test_what_may_have_killed_one_process_does_not_wait(self):
        self.be_killed(1)
        survivor = self.consume("survivor")
        self.wait_until_held(survivor)

        roster.leave("dead", ALIAS)

        self.assertTrue(self.take(survivor).redelivered)

    def be_killed(self, times: int) -> None:
        """Have one process take the message, and die."""
        super().be_killed(1)
