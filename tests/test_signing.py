"""Signed messages: what nobody vouches for never runs."""

from __future__ import annotations

import json
from typing import Any

from django.db import transaction
from django.test import SimpleTestCase, override_settings

from django_actors import Message
from django_actors.brokers.database import DatabaseBroker
from django_actors.brokers.rabbitmq_parking import Parking
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.dispatcher import Dispatcher
from django_actors.errors import UntrustedMessage
from django_actors.executor import Executor
from django_actors.message import Envelope
from django_actors.models import Kind, WaitingMessage
from django_actors.registry import registry
from django_actors.signing import OPTION, seal, unseal
from django_actors.waiting_room import WaitingRoom
from tests.admin.cases import AdminCase, Page, bury, greet

from .engine import EngineCase, RemoteBroker, envelop, make_message, silence
from .support import actors_settings

OTHER_KEY = "another key, of fifty characters, as Django likes it"


def change(body: bytes, **fields: Any) -> bytes:
    """Return a body in which fields are others, as somebody who has no key can do."""
    return json.dumps({**json.loads(body), **fields}).encode()


def unsigned(body: bytes) -> bytes:
    fields = json.loads(body)
    del fields["options"][OPTION]
    return json.dumps(fields).encode()


class SealTests(SimpleTestCase):
    def test_what_was_signed_is_read_as_it_was(self):
        message = make_message("greet", 1.0, 10**30, "é\u2028🦜", {"b": 1, "a": [None]}, x=True)

        for mode in ("off", "sign", "require"):
            with self.subTest(mode), actors_settings(SIGNING=mode):
                self.assertEqual(unseal(seal(message)), message)

    def test_without_the_setting_nothing_changes_on_the_wire(self):
        message = make_message("greet", 1)

        self.assertEqual(seal(message), message.encode())

    def test_a_worker_that_does_not_sign_reads_signed_messages(self):
        message = make_message("greet", 1)
        with actors_settings(SIGNING="require"):
            body = seal(message)

        self.assertEqual(Message.decode(body).args, (1,))
        self.assertEqual(unseal(body), message)

    def test_any_other_field_or_value_is_found_out(self):
        with actors_settings(SIGNING="require"):
            body = seal(make_message("greet", 1, retries=2))
            fields = json.loads(body)
            for changed in (
                {"actor_name": "pay"},
                {"queue_name": "other"},
                {"args": [2]},
                {"args": [1.0]},
                {"args": [True]},
                {"kwargs": {"x": 1}},
                {"options": {**fields["options"], "retries": 1}},
                {"options": {**fields["options"], "priority": -1}},
                {"message_id": "another"},
                {"message_timestamp": fields["message_timestamp"] + 1},
            ):
                with self.subTest(changed), self.assertRaisesMessage(UntrustedMessage, "is wrong"):
                    unseal(change(body, **changed))

    def test_a_field_that_stands_there_twice_counts_as_it_would_run(self):
        with actors_settings(SIGNING="require"):
            body = seal(make_message("greet", 1))
            doubled = body.replace(b'"args":[1]', b'"args":[1],"args":[2]')

            self.assertRaises(UntrustedMessage, unseal, doubled)

    def test_signatures_that_are_none(self):
        with actors_settings(SIGNING="require"):
            body = seal(make_message("greet", 1))
            nothing: list[Any] = ["", ":", "x", "é", None, 5, [], {}, True]
            for signature in nothing:
                with self.subTest(signature=signature):
                    forged = change(body, options={OPTION: signature})
                    self.assertRaises(UntrustedMessage, unseal, forged)

    def test_a_message_without_a_signature_runs_only_where_none_is_required(self):
        body = make_message("greet", 1).encode()

        with actors_settings(SIGNING="sign"):
            self.assertEqual(unseal(body).args, (1,))
        with (
            actors_settings(SIGNING="require"),
            self.assertRaisesMessage(UntrustedMessage, "'greet' has no signature"),
        ):
            unseal(body)

    def test_a_wrong_signature_is_wrong_also_where_none_is_required(self):
        with actors_settings(SIGNING="sign"):
            forged = change(seal(make_message("greet", 1)), args=[2])

            self.assertRaises(UntrustedMessage, unseal, forged)

    def test_a_key_can_be_rotated(self):
        with actors_settings(SIGNING="require"):
            with override_settings(SECRET_KEY=OTHER_KEY):
                body = seal(make_message("greet", 1))

            self.assertRaises(UntrustedMessage, unseal, body)
            with override_settings(SECRET_KEY_FALLBACKS=[OTHER_KEY]):
                self.assertEqual(unseal(body).args, (1,))

    def test_a_stale_signature_is_never_passed_on(self):
        with actors_settings(SIGNING="require"):
            stale = Message.decode(seal(make_message("greet", 1)))

            self.assertEqual(unseal(seal(stale.copy(args=(2,)))).args, (2,))
        self.assertNotIn(OPTION, Message.decode(seal(stale)).options)


@actors_settings(SIGNING="require")
class EngineTests(EngineCase):
    """On the whole way of a message: broker, waiting room, outbox, worker."""

    def setUp(self) -> None:
        super().setUp()
        self.broker: Any = self.use(DatabaseBroker())
        self.ran: list[Any] = []
        self.note = self.declare(self.ran.append, actor_name="note", max_retries=0)

    def run_ready(self) -> list[Delivery]:
        consumer = self.broker.consume(["default"], owner="o")
        deliveries = list(consumer.fetch(100, timeout=0.05))
        with silence():
            for delivery in deliveries:
                Executor(self.broker).run(delivery)
            self.broker.settle(consumer, deliveries)
        consumer.close()
        return deliveries

    def publish(self, body: bytes) -> None:
        self.broker.publish([Envelope("some-id", "default", 0, body)])

    def test_a_sent_message_runs(self):
        self.note.send("sent")

        self.run_ready()

        self.assertEqual(self.ran, ["sent"])

    def test_an_unsigned_message_becomes_a_dead_letter_and_never_runs(self):
        self.broker.publish([envelop(self.note.message("forged"))])

        [delivery] = self.run_ready()

        self.assertEqual((self.ran, delivery.fate), ([], Fate.DEAD))
        row = WaitingMessage.objects.get()
        self.assertEqual((row.kind, row.reason), (Kind.DEAD, Reason.BAD_SIGNATURE))
        self.assertEqual((row.actor_name, row.call), ("note", "note('forged')"))
        self.assertIn("has no signature", row.error)

    def test_an_altered_message_becomes_a_dead_letter_that_keeps_its_bytes(self):
        altered = change(seal(self.note.message("sent")), args=["altered"])
        self.publish(altered)

        self.run_ready()

        self.assertEqual(self.ran, [])
        self.assertEqual(bytes(WaitingMessage.objects.get().body), altered)

    def test_a_forged_message_does_not_take_the_place_of_the_one_whose_id_it_has(self):
        honest = self.note.send_with_options(args=("later",), delay=60_000)
        self.publish(self.note.message("forged").copy(message_id=honest.message_id).encode())

        self.run_ready()

        kept = WaitingMessage.objects.get(message_id=honest.message_id)
        self.assertEqual((kept.kind, kept.reason), (Kind.SCHEDULED, Reason.DELAY))
        self.assertEqual(WaitingMessage.objects.filter(message_id=None).count(), 1)

    def test_no_hook_and_no_callback_hears_of_a_forged_message(self):
        heard: list[Any] = []
        self.declare(lambda *args: heard.append(args), actor_name="hear")
        self.declare(lambda: None, actor_name="loud", on_failure="hear", max_retries=0)
        self.publish(make_message("loud").encode())

        self.run_ready()
        self.run_ready()

        self.assertEqual(heard, [])

    def test_delayed_retried_and_requeued_messages_stay_signed(self):
        def fail_once(name: str) -> None:
            self.ran.append(name)
            if len(self.ran) == 1:
                raise ValueError

        flaky = self.declare(fail_once, actor_name="flaky", min_backoff=0, max_retries=1)
        flaky.send_with_options(args=("Ada",), delay=1)
        for _ in range(2):
            Dispatcher(self.broker).run_once(now=2**52)
            self.run_ready()
        self.assertEqual(self.ran, ["Ada", "Ada"])

        flaky.send("dies")
        self.ran.clear()
        self.replace_by_failure()
        self.run_ready()
        WaitingRoom().requeue(WaitingMessage.objects.filter(kind=Kind.DEAD))
        self.replace_by_success()
        Dispatcher(self.broker).run_once(now=2**52)
        self.run_ready()
        self.assertEqual(self.ran, ["dies"])

    def replace_by_failure(self) -> None:
        def fail(name: str) -> None:
            raise ValueError(name)

        registry.remove("flaky")
        self.declare(fail, actor_name="flaky", max_retries=0)

    def replace_by_success(self) -> None:
        registry.remove("flaky")
        self.declare(self.ran.append, actor_name="flaky")

    def test_the_outbox_keeps_signatures(self):
        self.broker = self.use(RemoteBroker())
        self.broker.refuses = True
        with silence(), transaction.atomic():
            self.note.send("from the outbox")
        self.broker.refuses = False

        Dispatcher(self.broker).run_once(now=2**52)
        self.run_ready()

        self.assertEqual(self.ran, ["from the outbox"])

    def test_a_worker_that_does_not_sign_hands_no_stale_signature_on(self):
        failing = self.declare(lambda: 1 / 0, actor_name="failing", min_backoff=0, max_retries=5)
        failing.send()
        with actors_settings(SIGNING="off"):
            self.run_ready()

        row: Any = WaitingMessage.objects.get()

        self.assertNotIn(OPTION, Message.decode(bytes(row.body)).options)
        with actors_settings(SIGNING="sign"):
            self.assertEqual(row.runnable.options["retries"], 1)

    def test_a_message_that_is_parked_while_it_runs_stays_signed(self):
        message = self.note.message("long")
        delivery = Delivery(seal(message), queue_name="default", message=message)

        Parking(self.broker.waiting_room, "o").park([delivery])

        row: Any = WaitingMessage.objects.get()
        self.assertEqual(row.runnable.args, ("long",))

    def test_an_actor_and_its_hooks_do_not_see_the_signature(self):
        self.note.send("x")

        [delivery] = self.run_ready()

        self.assertEqual(delivery.options, {})


@actors_settings(SIGNING="require")
class AdminTests(AdminCase):
    """What an operator can do: only who edits a message vouches for it."""

    def bury_forged(self) -> Any:
        row = bury(greet.message("Mallory"))
        forged = unsigned(bytes(row.body))
        WaitingMessage.objects.filter(pk=row.pk).update(
            body=forged, message_id=None, reason=Reason.BAD_SIGNATURE
        )
        row.refresh_from_db()
        return row

    def test_a_signed_dead_letter_is_requeued_and_signed_anew(self):
        row = bury(greet.message("Ada"))

        self.act([row], "requeue")

        waiting = WaitingMessage.objects.get(pk=row.pk)
        self.assertEqual(waiting.kind, Kind.SCHEDULED)
        self.assertEqual(unseal(bytes(waiting.body)).args, ("Ada",))

    def test_a_message_with_a_bad_signature_cannot_be_requeued_as_it_is(self):
        row = self.bury_forged()

        response = self.act([row], "requeue")

        self.assertIn("holds no message that could run", " ".join(self.told(response)))
        self.assertEqual(WaitingMessage.objects.get().kind, Kind.DEAD)
        page = Page(self.client.get(self.row_url(row)))
        self.assertNotIn(self.row_url(row, "requeue"), page.links)

    def test_a_row_that_was_changed_in_the_database_cannot_be_requeued_as_it_is(self):
        row = bury(greet.message("Ada"))
        altered = change(bytes(row.body), args=["Mallory"])
        WaitingMessage.objects.filter(pk=row.pk).update(body=altered)

        response = self.act([row], "requeue")

        self.assertIn("holds no message that could run", " ".join(self.told(response)))
        self.assertEqual(WaitingMessage.objects.get().kind, Kind.DEAD)

    def test_who_may_edit_may_vouch_for_it_as_a_new_message(self):
        row = self.bury_forged()
        url = self.row_url(row, "edit_and_requeue")
        answer = Page(self.client.get(url)).answer(args='["Ada"]', kwargs="{}")

        response = self.client.post(url, answer, follow=True)

        self.assertEqual(self.told(response), ["1 message was requeued."])
        waiting = WaitingMessage.objects.get()
        self.assertEqual(unseal(bytes(waiting.body)).args, ("Ada",))
        self.assertNotEqual(waiting.message_id, Message.decode(bytes(row.body)).message_id)

    def test_the_signature_is_shown_nowhere(self):
        row = bury(greet.message("Ada"))
        signature = json.loads(bytes(row.body))["options"][OPTION]

        self.assertNotContains(self.client.get(self.row_url(row)), signature)
