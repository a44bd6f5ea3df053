"""
What there is to look at in the admin while the demo runs: something of everything.

All of it is real work: messages that fail, wait, run for long, or lie in a queue that is paused.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.urls import reverse

from django_actors import control
from django_actors.models import DeadLetter, ErrorGroup, ScheduledMessage
from words.tasks import count_words, keep_watch, mail_report, send_newsletter
from words.views import FABLES

PAUSED_QUEUE = "newsletter"
WATCH_S = 300


def set_scene(site: str) -> None:
    """Send what fails, waits and runs for long."""
    control.pause(PAUSED_QUEUE, by="demo")
    send_newsletter.send_many([(number,) for number in (1, 2, 3)])
    fables = [site + reverse("words:fable", args=[slug]) for slug in FABLES]
    mail_report.send_many([(url, "nobody") for url in fables])
    mail_report.send(fables[0], "ada@example.com")
    count_words.send(f"{site}/no-page-at-all/")
    for hours, url in enumerate(fables, 1):
        count_words.send_with_options(args=(url,), delay=timedelta(hours=6 * hours))
    keep_watch.send(site + reverse("words:index"), WATCH_S)


def describe_scene(site: str) -> Iterator[str]:
    """Yield what the admin has to show, and where."""

    def at(model: str) -> str:
        return site + reverse(f"admin:django_actors_{model}_changelist")

    dead, groups = DeadLetter.objects.count(), ErrorGroup.objects.count()
    waiting = ScheduledMessage.objects.count()
    yield f"{dead} dead letters, {groups} error groups   {at('errorgroup')}"
    yield f"{waiting} scheduled messages, retries among them   {at('scheduledmessage')}"
    yield f"Queues, of which {PAUSED_QUEUE!r} is paused, and workers   {at('overview')}"
    yield f"The actors, and a form to send to each   {at('actorsummary')}"
