"""
A canary in every place where it could sing: sensitive arguments and passwords show nowhere.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urldefrag, urljoin

from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase
from django.urls import reverse

from django_actors import Message, Middleware
from django_actors.brokers import build_broker
from django_actors.brokers.rabbitmq import RabbitmqBroker
from django_actors.brokers.redis import RedisBroker
from django_actors.brokers.redis_place import place_from_url
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.errors import BrokerError, BrokerUnavailable, Retry
from django_actors.middleware.base import build_middleware
from django_actors.models import DeadLetter, ScheduledMessage, WaitingMessage
from django_actors.registry import registry
from django_actors.rows import build_delivery_row
from django_actors.waiting_room import WaitingRoom
from tests.admin.cases import AdminCase, Page, charge

from .engine import RemoteBroker, envelop, silence
from .support import StubCase, actors_settings

# With what reprs, JSON and bytes each write in another way; no random id can hold it.
CANARY = "canary-41x11'\"é\n7"
FORMS = ("canary-41x11", "41x11")


def fail_with(error: Callable[[str], BaseException]) -> Callable[..., None]:
    def pay(card: str, amount: int = 0) -> None:
        raise error(card)

    return pay


class Clumsy(Middleware):
    """Every hook fails, and says of what."""

    def after_process_message(self, broker: Any, message: Any, **outcome: Any) -> None:
        raise KeyError(message.args)

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        raise KeyError(message.args, repr(message.encode()))


class SensitiveArgumentTests(StubCase):
    """In logs, tracebacks and the waiting room."""

    def setUp(self) -> None:
        super().setUp()
        self.use_middleware(*build_middleware())

    def pay(self, error: Callable[[str], BaseException], **options: Any) -> Any:
        return self.declare(
            fail_with(error), actor_name="pay", sensitive=("card",), **{"max_retries": 0, **options}
        )

    def assert_silent(self, *texts: str) -> None:
        for text in (self.log.text(), *texts):
            for form in FORMS:
                self.assertNotIn(form, text)
        self.assertNotEqual(self.log.text(), "")

    def rows_as_text(self) -> str:
        shown = ("call", "error", "error_class", "traceback", "reason")
        rows = self.broker.room.rows.values()
        return "\n".join(str([repr(row), *(getattr(row, name) for name in shown)]) for row in rows)

    def test_an_error_that_says_everything(self):
        errors: dict[str, Callable[[str], BaseException]] = {
            "text": ValueError,
            "repr": lambda card: KeyError([card]),
            "json": lambda card: ValueError(Message("q", "pay", (card,), {}, {}).encode().decode()),
            "bytes": lambda card: ValueError(Message("q", "pay", (card,), {}, {}).encode()),
            "retry": lambda card: Retry(card, delay=5),
            "system exit": SystemExit,
        }
        for name, error in errors.items():
            with self.subTest(name):
                self.pay(error).send(CANARY)

                self.run_ready()

                self.assert_silent(self.rows_as_text())
                self.broker.room.clear()
                registry.remove("pay")

    def test_the_traceback_that_travels_with_a_retry(self):
        self.pay(ValueError, max_retries=3).send(CANARY)

        self.run_ready()

        [row] = self.broker.room.rows.values()
        message: Any = row.message
        self.assert_silent(message.options["traceback"], self.rows_as_text())

    def test_hooks_that_fail(self):
        self.use_middleware(Clumsy(), *build_middleware())
        self.pay(ValueError).send(CANARY)

        self.run_ready()

        self.assertIn("Hook Clumsy.before_enqueue failed", self.log.text())
        self.assertIn("Hook Clumsy.after_process_message failed", self.log.text())
        self.assert_silent(self.rows_as_text())

    def test_the_message_that_a_callback_gets(self):
        def fail(message_data: Any, exception_data: Any) -> None:
            raise ValueError(message_data, exception_data)

        self.declare(fail, actor_name="alarm", max_retries=0)
        self.pay(ValueError, on_failure="alarm").send(CANARY)

        self.run_ready()

        [row] = [row for row in self.broker.room.rows.values() if row.actor_name == "alarm"]
        self.assertIn("alarm({", row.call)
        self.assert_silent(self.rows_as_text())

    def test_repr_and_text_of_what_travels(self):
        message = self.pay(ValueError).message(CANARY, amount=7)
        delivery = Delivery(message.encode(), queue_name="default", message=message)

        texts = [repr(message), str(message), f"{message!r:.500}", repr(envelop(message))]
        texts += [str(delivery), repr(delivery), repr(delivery.envelope())]

        self.log.records.append(logging.makeLogRecord({"msg": "so that there is a line"}))
        self.assert_silent(*texts)
        self.assertIn("pay(***, amount=7)", texts)
        self.assertIn("(***,)", texts[0])

    def test_what_the_outbox_says_when_the_broker_is_away(self):
        broker = self.use(RemoteBroker())
        broker.refuses = True
        pay = self.pay(ValueError)

        with self.assertRaises(BrokerUnavailable) as caught:
            pay.send(CANARY)

        self.log.records.append(logging.makeLogRecord({"msg": "so that there is a line"}))
        self.assert_silent("".join(traceback.format_exception(caught.exception, limit=0)))

    def test_a_call_that_does_not_fit(self):
        pay = self.pay(ValueError)

        for args, kwargs in (((CANARY, 1, 2), {}), ((CANARY,), {"x": 1}), ((CANARY, {1}), {})):
            with self.subTest(args=len(args)), self.assertRaises(TypeError) as caught:
                pay.send(*args, **kwargs)
            self.assertNotIn("41x11", str(caught.exception))


class AdminTests(AdminCase):
    """On every page about a message, and about one that carries another."""

    def bury(self, message: Message, text: str) -> Any:
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.exception = ValueError(text)
        delivery.fail(Reason.RETRIES_EXHAUSTED)
        WaitingRoom().put([build_delivery_row(delivery)])
        return DeadLetter.objects.get(message_id=message.message_id)

    def wait(self, message: Message, text: str) -> Any:
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.exception = ValueError(text)
        delivery.retry(60_000)
        assert delivery.fate is Fate.RETRY
        WaitingRoom().put([build_delivery_row(delivery)])
        return ScheduledMessage.objects.get(message_id=message.message_id)

    def test_no_page_that_a_link_leads_to_shows_a_sensitive_argument(self):
        data = {"actor_name": charge.actor_name, "args": [5, CANARY], "kwargs": {}}
        callback = Message("default", "admin_tests.greet", (data,), {}, {})
        rows = [
            self.bury(charge.message(5, CANARY), CANARY),
            self.wait(charge.message(5, CANARY), CANARY),
            self.bury(callback, f"no alarm for {CANARY}"),
        ]

        self.log_in_without_arguments()
        pages = self.crawl([self.row_url(row) for row in rows])

        self.assertLessEqual({self.row_url(row) for row in rows}, pages.keys())
        for url, text in pages.items():
            with self.subTest(url):
                self.assertNotIn("41x11", text)

    def log_in_without_arguments(self) -> None:
        """Log somebody in who may do everything but look at sensitive arguments."""
        permissions = Permission.objects.filter(content_type__app_label="django_actors")
        names = permissions.exclude(codename__startswith="arguments_")
        self.log_in_with(*names.values_list("codename", flat=True))

    def crawl(self, begin: list[str]) -> dict[str, str]:
        """Return all pages about actors that can be reached, by their address without a query."""
        start = reverse("admin:app_list", args=["django_actors"])
        found: dict[str, str] = {}
        waiting = deque([start, *begin])
        while waiting:
            url = urldefrag(waiting.popleft()).url
            address = url.partition("?")[0]
            if address in found or not address.startswith(start):
                continue
            response = self.client.get(url, follow=True)
            self.assertEqual(response.status_code, 200, url)
            found[address] = response.content.decode()
            waiting += [urljoin(url, link) for link in Page(response).links]
        return found

    def test_a_carried_argument_survives_an_edit_unseen(self):
        data = {"actor_name": charge.actor_name, "args": [5, CANARY], "kwargs": {}}
        row = self.bury(Message("default", "admin_tests.greet", (data,), {"times": 1}, {}), "no")
        url = self.row_url(row, "edit_and_requeue")
        page = self.client.get(url)
        initial = page.context["form"].initial
        self.assertNotIn("41x11", initial["args"])

        answer = {"args": initial["args"], "kwargs": '{"times": 2}'}
        self.client.post(url, {**answer, "newest": row.stored_at.isoformat()})

        message: Any = WaitingMessage.objects.get(pk=row.pk).message
        self.assertEqual((message.args, message.kwargs), ((data,), {"times": 2}))


PASSWORD = "pa55w0rd"

# Each is wrong, or leads nowhere; some have a password that should have been percent-encoded.
URLS = [
    f"redis://user:{PASSWORD}@127.0.0.1:1/0",
    f"redis://:{PASSWORD}/x@127.0.0.1:1/0",
    f"redis://:{PASSWORD}#x@127.0.0.1:1/0",
    f"redis://:{PASSWORD}?x@127.0.0.1:1/0",
    f"redis://:{PASSWORD}@127.0.0.1:port/0",
    f"rediss://:{PASSWORD}@127.0.0.1:1/0?ssl_cert_reqs=often",
    f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:2/service/0",
    f"redis+sentinel://:{PASSWORD}@127.0.0.1:1",
    f"redis+sentinel://:{PASSWORD}/x@127.0.0.1:1/service",
    f"redis+sentinel://127.0.0.1:1/service?sentinel_password={PASSWORD}",
    f"amqp://user:{PASSWORD}@127.0.0.1:1/%2F?send_timeout=200",
    f"amqp://user:{PASSWORD}@127.0.0.1:port/%2F",
    f"amqp://user:{PASSWORD}#x@127.0.0.1:1/%2F",
    f"amqp://user:{PASSWORD}/x@127.0.0.1:1/%2F",
    f"amqp://user:{PASSWORD}@127.0.0.1:1/%2F?heartbeat=often",
    f"amqp://user:{PASSWORD}@127.0.0.1:1;127.0.0.1:x/%2F",
    f"amqp://{PASSWORD}@127.0.0.1:1/%2F",
    f"amqps://user:{PASSWORD}@127.0.0.1:1/%2F?color=red&send_timeout=200",
    f"database://user:{PASSWORD}@127.0.0.1/name",
    f"postgres://user:{PASSWORD}@127.0.0.1/name",
    f"user:{PASSWORD}@127.0.0.1",
]


class PasswordTests(SimpleTestCase):
    """In the words of a URL that is wrong, and of a server that is away."""

    # The checks look at every part of the project, models too.
    databases = {"default"}

    def test_no_error_and_no_log_line_names_a_password(self):
        for url in URLS:
            for setting in (url, {"URL": url}, {"URL": url, "OPTIONS": {"color": "red"}}):
                with self.subTest(setting=setting):
                    self.assert_silent(self.trouble_of(setting))

    def trouble_of(self, setting: Any) -> str:
        """Do all that can go wrong, and return what was said about it."""
        try:
            broker = build_broker(setting)
        except ImproperlyConfigured as error:
            return "".join(traceback.format_exception(error))
        self.addCleanup(broker.close)
        said = [repr(broker), str(vars(broker))]
        # What a publisher says the contract of brokers looks at; it would try for seconds.
        for attempt in (broker.ping, self.read(broker)) if isinstance(setting, str) else ():
            try:
                with silence():
                    attempt()
            except BrokerError as error:
                said += traceback.format_exception(error)
        return "\n".join(said)

    def read(self, broker: Any) -> Callable[[], Any]:
        return lambda: broker.consume(["default"], owner="o").fetch(1, timeout=0)

    def assert_silent(self, text: str) -> None:
        # Source lines of this file stand in tracebacks.
        self.assertNotIn(PASSWORD, text.replace('PASSWORD = "pa55w0rd"', ""))

    def test_no_check_names_a_password(self):
        for url in URLS:
            for setting in (url, {"URL": url}, {"URL": url, "OPTIONS": 5}, {url: url}, [url]):
                with self.subTest(setting=setting), actors_settings(BROKER=setting):
                    found = run_checks(tags=["django_actors"], include_deployment_checks=True)

                    self.assert_silent("\n".join(map(str, found)))

    def test_what_a_broker_is_made_of_does_not_name_it_either(self):
        place = place_from_url(URLS[0], {})
        self.assert_silent(f"{place!r} {place}")
        redis_broker = RedisBroker(URLS[0])
        rabbitmq = RabbitmqBroker(URLS[10])
        for each in (redis_broker, rabbitmq):
            self.addCleanup(each.close)
            self.assert_silent(" ".join(map(repr, vars(each).values())))
