"""Find dead letters and scheduled messages, and act on many."""

from __future__ import annotations

from datetime import timedelta
from unittest import mock

from django.utils import timezone

from django_actors import clock, control
from django_actors.control import messages
from django_actors.models import (
    Attempt,
    DeadLetter,
    Kind,
    Outcome,
    ScheduledMessage,
    WaitingMessage,
)
from tests.admin.cases import bury, bury_bytes, charge, retry, wait

from .cases import ControlCase, greet


class SelectionTests(ControlCase):
    def setUp(self) -> None:
        super().setUp()
        self.old = bury(greet.message("old"), KeyError("x"))
        DeadLetter.objects.update(stored_at=timezone.now() - timedelta(days=2))
        self.new = bury(charge.message(1, "card"), ValueError("x"))

    def found(self, **filters: object) -> list[object]:
        return [row.pk for row in control.dead_letters(**filters).rows()]  # type: ignore[arg-type]

    def test_everything_is_selected_without_a_filter(self):
        self.assertEqual(self.found(), [self.new.pk, self.old.pk])

    def test_every_filter_narrows(self):
        for name, value in {
            "queue": "mail",
            "actor": "admin_tests.greet",
            "exception": "KeyError",
            "older_than": timedelta(days=1),
            "ids": [self.old.message_id],
        }.items():
            with self.subTest(name):
                self.assertEqual(self.found(**{name: value}), [self.old.pk])
        self.assertEqual(self.found(newer_than=86_400_000), [self.new.pk])
        self.assertEqual(self.found(reason="too old"), [])

    def test_filters_work_together(self):
        self.assertEqual(self.found(queue="mail", newer_than=86_400_000), [])

    def test_an_exception_is_found_without_its_module(self):
        self.old.error_class = "shop.errors.Broken"
        self.old.save()

        self.assertEqual(self.found(exception="Broken"), [self.old.pk])
        self.assertEqual(self.found(exception="shop.errors.Broken"), [self.old.pk])

    def test_a_row_without_a_message_is_found_by_its_number(self):
        row = bury_bytes(b"?")

        self.assertEqual(self.found(ids=[f"#{row.pk}"]), [row.pk])
        self.assertEqual(control.show(f"#{row.pk}"), WaitingMessage.objects.get(pk=row.pk))

    def test_they_are_counted_by_actor(self):
        bury(greet.message("more"))

        counts = control.dead_letters().count_by_actor()

        self.assertEqual(
            list(counts.items()), [("admin_tests.greet", 2), ("admin_tests.charge", 1)]
        )

    def test_scheduled_messages_come_in_the_order_in_which_they_run(self):
        later = wait(greet.message("later"), delay=9_000_000)
        sooner = retry(greet.message("sooner"), 2)

        self.assertEqual([row.pk for row in control.scheduled().rows()], [sooner.pk, later.pk])
        self.assertEqual([row.pk for row in control.scheduled(reason="retry").rows()], [sooner.pk])

    def test_what_is_neither_dead_nor_scheduled_is_not_shown(self):
        self.assertIsNone(control.show("nobody"))


class OperationTests(ControlCase):
    def test_dead_letters_are_requeued(self):
        row = bury(greet.message("x"))

        report = control.requeue(control.dead_letters())

        self.assertEqual((report.done, report.skipped), (1, {}))
        self.assertEqual(ScheduledMessage.objects.get().message_id, row.message_id)

    def test_a_delay_is_kept(self):
        bury(greet.message("x"))

        control.requeue(control.dead_letters(), delay=timedelta(hours=1))

        self.assertGreater(ScheduledMessage.objects.get().due_ms, clock.now_ms() + 3_000_000)

    def test_what_holds_no_message_is_skipped_and_told_of(self):
        bury(greet.message("x"))
        bury_bytes(b"?")

        report = control.requeue(control.dead_letters())

        self.assertEqual((report.done, report.skipped), (1, {messages.NO_MESSAGE: 1}))
        self.assertEqual(DeadLetter.objects.count(), 1)

    def test_what_somebody_else_changes_meanwhile_is_skipped_and_told_of(self):
        row = bury(greet.message("x"))
        DeadLetter.objects.filter(pk=row.pk).update(claimed_by="somebody")

        report = control.discard(control.dead_letters())

        self.assertEqual((report.done, report.skipped), (0, {messages.CHANGED: 1}))

    def test_work_is_done_in_batches_and_tells_how_far_it_has_come(self):
        for number in range(5):
            bury(greet.message(number))
        seen: list[int] = []

        with mock.patch.object(messages, "BATCH_ROWS", 2):
            report = control.requeue(
                control.dead_letters(), progress=lambda report: seen.append(report.seen)
            )

        self.assertEqual((seen, report.done), ([2, 4, 5], 5))

    def test_large_messages_make_small_batches(self):
        for number in range(3):
            bury(greet.message(number))

        with mock.patch.object(messages, "BATCH_BYTES", 1):
            batches = list(control.dead_letters().batches(until=timezone.now()))

        self.assertEqual([len(batch) for batch in batches], [1, 1, 1])

    def test_what_dies_again_meanwhile_is_not_requeued_again(self):
        bury(greet.message("x"))

        def die_again(report: control.Report) -> None:
            bury(greet.message("again"))

        with mock.patch.object(messages, "BATCH_ROWS", 1):
            report = control.requeue(control.dead_letters(), progress=die_again)

        self.assertEqual((report.done, DeadLetter.objects.count()), (1, 1))

    def test_dead_letters_are_discarded(self):
        bury(greet.message("x"))
        bury_bytes(b"?")

        self.assertEqual(control.discard(control.dead_letters()).done, 2)
        self.assertEqual(WaitingMessage.objects.count(), 0)

    def test_scheduled_messages_run_now_later_or_never(self):
        wait(greet.message("x"))
        selection = control.scheduled()
        tomorrow = timezone.now() + timedelta(days=1)

        self.assertEqual(control.reschedule(selection, due=tomorrow).done, 1)
        self.assertGreater(ScheduledMessage.objects.get().due_ms, clock.now_ms() + 80_000_000)
        self.assertEqual(control.run_now(selection).done, 1)
        self.assertLessEqual(ScheduledMessage.objects.get().due_ms, clock.now_ms())
        self.assertEqual(control.cancel(selection).done, 1)
        self.assertEqual(WaitingMessage.objects.count(), 0)

    def test_who_did_what_is_part_of_the_story_of_each_message(self):
        message, other = greet.message("Ada"), greet.message("Bob")
        wait(message)
        bury(other)

        control.run_now(control.scheduled(), by="ada")
        control.reschedule(control.scheduled(), due=timezone.now() + timedelta(days=1), by="bob")
        control.cancel(control.scheduled(), by="eve")
        control.discard(control.dead_letters(), by="sam")

        lines = Attempt.objects.order_by("pk").values_list("message_id", "outcome", "by")
        self.assertEqual(
            list(lines),
            [
                (message.message_id, Outcome.RESCHEDULED, "ada"),
                (message.message_id, Outcome.RESCHEDULED, "bob"),
                (message.message_id, Outcome.CANCELLED, "eve"),
                (other.message_id, Outcome.DISCARDED, "sam"),
            ],
        )

    def test_dead_letters_are_no_scheduled_messages(self):
        bury(greet.message("x"))

        control.cancel(control.scheduled())

        self.assertEqual(WaitingMessage.objects.get().kind, Kind.DEAD)
