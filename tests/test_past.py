"""The past of messages that come again is asked for together, and is not used when it is old."""

from __future__ import annotations

from unittest import mock

from django.db import OperationalError

from django_actors import crashes, past
from django_actors.brokers.database import DatabaseBroker
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.executor import Executor
from django_actors.past import note_pasts, past_of
from tests.engine import EngineCase, deliver, make_message, silence


class PastCase(EngineCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = self.use(DatabaseBroker())

    def come_again(self, count: int = 1) -> list[Delivery]:
        return [
            deliver(make_message("append", number), redelivered=True) for number in range(count)
        ]

    def settle(self, delivery: Delivery) -> None:
        """Have an earlier delivery of the message end as a dead letter."""
        assert delivery.message is not None
        earlier = deliver(delivery.message)
        earlier.fail()
        self.broker.settle(mock.Mock(), [earlier])

    def kill(self, delivery: Delivery, times: int = 1) -> None:
        for _ in range(times):
            crashes.count([delivery.message_id], overdue=(), detail="died", alias="default")


class NotePastsTests(PastCase):
    def test_many_messages_take_two_questions(self):
        deliveries = self.come_again(100)

        with self.assertNumQueries(2):
            note_pasts(deliveries, self.broker)

        self.assertTrue(all(each.past == (False, None, mock.ANY) for each in deliveries))

    def test_no_statement_has_too_many_parameters(self):
        deliveries = self.come_again(5)

        with mock.patch.object(past, "MOST_KEYS", 2), self.assertNumQueries(6):
            note_pasts(deliveries, self.broker)

        self.assertTrue(all(each.past for each in deliveries))

    def test_each_is_told_its_own(self):
        innocent, settled, suspect = deliveries = self.come_again(3)
        self.settle(settled)
        self.kill(suspect, times=2)

        note_pasts(deliveries, self.broker)

        self.assertEqual(
            [(each.past.is_settled, bool(each.past.crash)) for each in deliveries if each.past],
            [(False, False), (True, False), (False, True)],
        )
        self.assertEqual(past_of(suspect, self.broker).crash.crashes, 2)  # type: ignore[union-attr]


class PastOfTests(PastCase):
    def test_what_was_just_found_out_is_not_asked_for_again(self):
        (delivery,) = self.come_again()
        note_pasts([delivery], self.broker)

        with self.assertNumQueries(0):
            past_of(delivery, self.broker)

    def test_what_happened_since_it_was_found_out_is_seen_after_a_moment(self):
        (delivery,) = self.come_again()
        note_pasts([delivery], self.broker)
        self.settle(delivery)

        with mock.patch.object(past, "GOOD_FOR_S", -1.0):
            self.assertTrue(past_of(delivery, self.broker).is_settled)


class LookUpTests(PastCase):
    """The executor, told of a batch before any of it runs."""

    def setUp(self) -> None:
        super().setUp()
        self.runs: list[int] = []
        self.declare(self.runs.append, actor_name="append")
        self.executor = Executor(self.broker)

    def undecoded(self, deliveries: list[Delivery]) -> list[Delivery]:
        return [Delivery(each.body, queue_name="default", redelivered=True) for each in deliveries]

    def run_all(self, deliveries: list[Delivery]) -> None:
        for each in deliveries:
            self.executor.run(each)

    def test_a_batch_that_comes_again_runs_without_more_questions(self):
        deliveries = self.undecoded(self.come_again(20))

        with self.assertNumQueries(2):
            self.executor.look_up(deliveries)
        with self.assertNumQueries(0):
            self.run_all(deliveries)

        self.assertEqual(self.runs, list(range(20)))

    def test_who_was_settled_or_has_killed_is_found_among_them(self):
        before = self.come_again(3)
        self.settle(before[0])
        self.kill(before[1], times=3)
        deliveries = self.undecoded(before)

        with silence():
            self.executor.look_up(deliveries)
            self.run_all(deliveries)

        self.assertEqual([each.fate for each in deliveries], [Fate.SKIPPED, Fate.DEAD, Fate.DONE])
        self.assertEqual(self.runs, [2])

    def test_what_comes_for_the_first_time_is_not_asked_for(self):
        first = [deliver(make_message("append", 1))]

        with self.assertNumQueries(0):
            self.executor.look_up(first)

        self.assertIsNone(first[0].past)

    def test_one_that_cannot_be_read_does_not_spoil_the_others(self):
        broken = Delivery(b"{", queue_name="default", redelivered=True)
        (good,) = self.undecoded(self.come_again())

        with silence():
            self.executor.look_up([broken, good])

        self.assertEqual((broken.fate, broken.reason), (Fate.DEAD, Reason.UNDECODABLE))
        self.assertIsNotNone(good.past)

    def test_while_the_database_does_not_answer_each_is_looked_up_when_its_turn_comes(self):
        deliveries = self.undecoded(self.come_again(2))

        for error in (OperationalError("gone"), RuntimeError("out of its mind")):
            with (
                self.subTest(error),
                mock.patch.object(self.broker, "find_crashes", side_effect=error),
            ):
                self.executor.look_up(deliveries)
                self.assertEqual([each.past for each in deliveries], [None, None])

        self.run_all(deliveries)
        self.assertEqual(self.runs, [0, 1])
