"""
Rows for the admin to show, users who look at them, and a reader of the pages.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import TestCase, TransactionTestCase
from django.urls import reverse

from django_actors import Message, actor, clock
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.models import DeadLetter, Kind, ScheduledMessage, WaitingMessage
from django_actors.rows import build_delivery_row, build_row
from django_actors.waiting_room import WaitingRoom

HOUR_MS = 3_600_000


@actor(actor_name="admin_tests.greet", queue_name="mail", max_retries=7)
def greet(name, *, times=1): ...


@actor(actor_name="admin_tests.charge", sensitive=("card", "pins"))
def charge(amount, card, *pins): ...


def bury(message: Message, error: BaseException | None = None, **options: Any) -> Any:
    """Write a dead letter as a worker does."""
    delivery = Delivery(message.encode(), queue_name=message.queue_name, message=message)
    delivery.exception = error or ValueError("no")
    delivery.fail(options.pop("reason", Reason.RETRIES_EXHAUSTED))
    WaitingRoom().put([build_delivery_row(delivery)])
    return DeadLetter.objects.get(message_id=message.message_id)


def bury_bytes(body: bytes, queue_name: str = "default") -> Any:
    """Write a dead letter that holds no message."""
    delivery = Delivery(body, queue_name=queue_name)
    delivery.fail(Reason.UNDECODABLE)
    row = build_delivery_row(delivery)
    row.save()
    return DeadLetter.objects.get(pk=row.pk)


def wait(message: Message, *, delay: int = HOUR_MS, **fields: Any) -> Any:
    """Write a row that waits for its time."""
    row = build_row(
        message,
        message.encode(),
        kind=fields.pop("kind", Kind.SCHEDULED),
        reason=fields.pop("reason", Reason.DELAY),
        priority=0,
        due_ms=clock.now_ms() + delay,
    )
    for name, value in fields.items():
        setattr(row, name, value)
    WaitingRoom().put([row])
    return ScheduledMessage.objects.get(message_id=message.message_id)


def retry(message: Message, retries: int) -> Any:
    """Write a retry that waits for its backoff."""
    message = message.copy(options={**message.options, "retries": retries})
    delivery = Delivery(message.encode(), queue_name=message.queue_name, message=message)
    delivery.exception = KeyError("x")
    delivery.fate, delivery.reason = Fate.RETRY, Reason.RETRY
    delivery.due_ms = clock.now_ms() + HOUR_MS
    delivery.max_retries = message.options.get("max_retries", 7)
    WaitingRoom().put([build_delivery_row(delivery)])
    return ScheduledMessage.objects.get(message_id=message.message_id)


class Page(HTMLParser):
    """What a browser would find in a response, and what a strict policy would refuse."""

    VOID = ("input", "br", "meta", "link", "img", "hr", "path", "symbol", "use", "circle")

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.fields: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.refused: list[str] = []
        self.texts: list[str] = []
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "style" or (tag == "script" and "src" not in found):
            self.refused.append(f"<{tag}>")
        self.refused += [n for n in found if n == "style" or n.startswith("on")]
        self.refused += [v for v in found.values() if v.strip().lower().startswith("javascript:")]
        if tag == "a":
            self.links.append(found.get("href", ""))
        if tag == "input" and found.get("type") == "hidden" and "name" in found:
            self.fields.append((found["name"], found.get("value", "")))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def answer(self, **more: Any) -> dict[str, Any]:
        """Return what pressing the button would send."""
        data: dict[str, Any] = {}
        for name, value in self.fields:
            data.setdefault(name, []).append(value)
        return {**data, **more}


# Made by migrations, and needed by every test.
_KEPT = {"contenttypes.contenttype", "auth.permission"}


class OperatorMixin(TransactionTestCase):
    """For tests with other threads: all rows go afterwards, but not the permissions."""

    available_apps: Any = None

    def _fixture_teardown(self) -> None:
        # Django's own way would make the permissions anew after each test. First what others
        # point to, and with it what points to it.
        get_user_model().objects.all().delete()
        for model in apps.get_models():
            if not model._meta.proxy and model._meta.label_lower not in _KEPT:
                rows: Any = model._base_manager.using("default").all()
                rows._raw_delete("default")


class AdminCase(TestCase):
    """A superuser is logged in."""

    def setUp(self) -> None:
        self.user = get_user_model().objects.create_superuser("ada", password="x")
        self.client.force_login(self.user)

    def log_in_with(self, *codenames: str) -> None:
        """Log somebody in who has these permissions alone."""
        user = get_user_model().objects.create_user("bob", password="x", is_staff=True)
        permissions = Permission.objects.filter(codename__in=codenames)
        self.assertEqual(permissions.count(), len(codenames))
        user.user_permissions.set(permissions)
        self.client.force_login(user)

    def list_url(self, model: type[WaitingMessage]) -> str:
        return reverse(f"admin:django_actors_{model._meta.model_name}_changelist")

    def row_url(self, row: WaitingMessage, name: str = "change") -> str:
        return reverse(f"admin:django_actors_{row._meta.model_name}_{name}", args=[row.pk])

    def ask(self, rows: Any, action: str, *, query: str = "", across: bool = False) -> Any:
        """Choose an action on the list."""
        data = {
            "action": action,
            "_selected_action": [row.pk for row in rows],
            "select_across": int(across),
            "index": 0,
        }
        return self.client.post(self.list_url(type(rows[0])) + query, data)

    def act(self, rows: Any, action: str, *, query: str = "", across: bool = False, **more) -> Any:
        """Choose an action on the list, and say yes."""
        asked = self.ask(rows, action, query=query, across=across)
        self.assertEqual(asked.status_code, 200)
        url = self.list_url(type(rows[0])) + query
        return self.client.post(url, Page(asked).answer(**more), follow=True)

    def act_on_row(self, row: WaitingMessage, action: str, **more: Any) -> Any:
        """Follow the link on the page of a row, and say yes."""
        asked = self.client.get(self.row_url(row, action))
        self.assertEqual(asked.status_code, 200)
        return self.client.post(self.row_url(row, action), Page(asked).answer(**more), follow=True)

    def told(self, response: Any) -> list[str]:
        return [str(message) for message in response.context["messages"]]

    def logged(self) -> list[tuple[Any, str]]:
        entries = LogEntry.objects.order_by("pk")
        return [(entry.object_id, entry.change_message) for entry in entries]
