"""
Make the pictures of the admin that these pages show: ``python docs/screenshots.py``.

Needs Chromium and the package ``playwright``. Fills a database of its own with a shop that has
had a bad day, serves the test project, and writes PNG files to ``docs/images``. With ``--unfold``
it does so in the dress of django-unfold: ``python docs/screenshots.py --unfold overview``.
"""

from __future__ import annotations

import argparse
import json
import linecache
import logging
import os
import random
import shutil
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

DESKTOP = {"width": 1280, "height": 800}
TALL = {"width": 1280, "height": 1900}
PHONE = {"width": 390, "height": 844}

# What is shown as the code of the shop, at the place where a server would have it.
TASKS = """
from django_actors import actor


@actor(actor_name="shop.charge", queue_name="payments", sensitive=("card",), max_retries=5)
def charge(order, amount, card=None):
    "Charge a card for an order."
    if order % 3:
        raise ConnectionError("gateway.example does not answer (timeout after 10 s)")
    raise ValueError(f"{amount} is no amount of money")


@actor(actor_name="shop.send_receipt", queue_name="mail")
def send_receipt(order, to):
    "Send the receipt of an order by mail."
    raise KeyError("postcode")


@actor(actor_name="shop.resize_picture", queue_name="pictures", max_retries=3)
def resize_picture(path, width=800):
    "Make the picture of a product as wide as the shop shows it."
    with open(path, "rb") as file:
        return file.read(width)
"""


class Shot(NamedTuple):
    """A picture: its name, the page, and how it is looked at."""

    name: str
    path: str
    scheme: str = "light"
    viewport: dict[str, int] = DESKTOP


def load_shop() -> Any:
    """Return the module of the shop, as if it had been read from a file."""
    place = "/srv/shop/tasks.py"
    linecache.cache[place] = (len(TASKS), None, TASKS.splitlines(keepends=True), place)
    shop = types.ModuleType("shop.tasks")
    sys.modules["shop.tasks"] = shop
    exec(compile(TASKS, place, "exec"), vars(shop))
    return shop


def have_a_bad_day(shop: Any) -> None:
    """Run messages that fail, over the last day."""
    from django_actors import clock

    dice = random.Random(7)
    now = clock.now_ms()
    moments = sorted(dice.choices(range(24 * 60), weights=range(24 * 60), k=120))
    try:
        for minute in moments:
            moment = now - (24 * 60 - minute) * MINUTE_MS
            clock.set_source(lambda moment=moment: moment)
            fail(pick_message(shop, dice), attempts=dice.choice((1, 3, 6)))
    finally:
        clock.set_source(None)
    for number in range(1, 6):
        shop.send_receipt.send_with_options(
            args=(4200 + number, "ada@example.com"), delay=number * HOUR_MS
        )


def pick_message(shop: Any, dice: random.Random) -> Any:
    order = dice.randrange(1_000, 9_000)
    choices = (
        shop.charge.message(order, "12.50", card="4111 1111 1111 1111"),
        shop.charge.message(order, "12.50", card="4111 1111 1111 1111"),
        shop.send_receipt.message(order, "ada@example.com"),
        shop.resize_picture.message(f"/srv/media/{order}.jpg", width=1_200),
    )
    return dice.choice(choices)


def fail(message: Any, *, attempts: int) -> None:
    """Run a message so often as a worker would, until it waits or is dead."""
    from django_actors import clock, get_broker
    from django_actors.delivery import Delivery, Fate
    from django_actors.executor import Executor

    broker = get_broker()
    for _ in range(attempts):
        began = clock.now_ms()
        delivery = Delivery(message.encode(), queue_name=message.queue_name)
        Executor(broker).run(delivery)
        clock.set_source(lambda ended=began + 420: ended)
        broker.settle(mock.Mock(), [delivery])
        if delivery.fate is not Fate.RETRY or delivery.message is None:
            return
        message = delivery.message
        clock.set_source(lambda ended=began + 2 * MINUTE_MS: ended)


def have_workers(shop: Any) -> None:
    """Write what workers would have written of themselves and of the last day."""
    from django_actors import clock, control
    from django_actors.models import ActorCount, Period, WorkerRecord

    dice = random.Random(7)
    now = clock.now_ms()
    running = [
        {"message_id": f"{n}", "actor_name": name, "queue_name": queue, "since_ms": now - age}
        for n, (name, queue, age) in enumerate(
            [("shop.charge", "payments", 2_400), ("shop.resize_picture", "pictures", 41_000)]
        )
    ]
    for number, host in enumerate(("web1", "web1", "web2", "web2")):
        WorkerRecord.objects.create(
            owner=f"shop-{number}",
            host=host,
            pid=4_100 + 7 * number,
            queues=json.dumps(["default", "mail", "newsletter", "payments", "pictures"]),
            threads=8,
            busy=len(running) if number == 1 else 0,
            running=json.dumps(running if number == 1 else []),
            memory_bytes=(86 + 5 * number) * 1024 * 1024,
            started_ms=now - 30 * HOUR_MS,
            # They would go on renewing it while the pictures are made.
            seen_ms=now + 5 * MINUTE_MS,
        )
    actors = {"shop.charge": "payments", "shop.send_receipt": "mail"}
    actors["shop.resize_picture"] = "pictures"
    spans = ((Period.MINUTE, MINUTE_MS, 60, 40), (Period.HOUR, HOUR_MS, 24, 2_400))
    for period, length_ms, count, most in spans:
        for name, queue in actors.items():
            for number in range(count):
                done = dice.randrange(most // 4, most)
                failed = dice.randrange(1 + done // 12)
                ActorCount.objects.create(
                    period=period,
                    bucket_ms=now - now % length_ms - number * length_ms,
                    queue_name=queue,
                    actor_name=name,
                    succeeded=done,
                    failed=failed,
                    retried=failed - failed // 5,
                    dead=failed // 5,
                    run_ms=done * 45,
                )
    control.pause("newsletter", by="ada")
    shop.resize_picture.send_many([(f"/srv/media/{number}.jpg",) for number in range(37)])
    shop.send_receipt.send_many([(number, "ada@example.com") for number in range(4)])


def age_rows() -> None:
    """Give the rows the times that they would have if workers had run."""
    from django.db.models import F

    from django_actors import clock
    from django_actors.models import Attempt, WaitingMessage

    ended = dict(Attempt.objects.order_by("pk").values_list("message_id", "ended_ms"))
    for row in WaitingMessage.objects.filter(kind="dead"):
        row.stored_at = clock.from_ms(ended[row.message_id])
        row.save(update_fields=["stored_at"])
    WaitingMessage.objects.filter(due_ms__lt=clock.now_ms()).update(
        due_ms=F("due_ms") + 24 * HOUR_MS
    )


def find_shots() -> list[Shot]:
    """Return what there is to see; the database is full by now."""
    from django.urls import reverse

    from django_actors.models import Attempt, DeadLetter, ErrorGroup

    group = ErrorGroup.objects.filter(actor_name="shop.charge").order_by("-count")[0]
    last = Attempt.objects.filter(outcome="dead", error_class="ConnectionError")
    letter = DeadLetter.objects.get(message_id=last.latest("number").message_id)
    groups = reverse("admin:django_actors_errorgroup_changelist")
    letters = reverse("admin:django_actors_deadletter_changelist")
    of_group = reverse("admin:django_actors_errorgroup_change", args=[group.pk])
    of_letter = reverse("admin:django_actors_deadletter_change", args=[letter.pk])
    scheduled = reverse("admin:django_actors_scheduledmessage_changelist")
    overview = reverse("admin:django_actors_overview_changelist")
    return [
        Shot("overview", overview),
        Shot("overview-dark", overview, "dark"),
        Shot("overview-phone", overview, viewport=PHONE),
        Shot("actors", reverse("admin:django_actors_actorsummary_changelist")),
        Shot("error-groups", groups),
        Shot("error-groups-dark", groups, "dark"),
        Shot("error-group", of_group),
        Shot("dead-letters", letters),
        Shot("dead-letters-phone", letters, viewport=PHONE),
        Shot("message", of_letter, viewport=TALL),
        Shot("scheduled-messages", scheduled),
    ]


def wear_unfold() -> None:
    """Have the settings name django-unfold, which needs to be installed."""
    from testproject import settings

    settings.INSTALLED_APPS.insert(0, "unfold")


@contextmanager
def serve() -> Iterator[str]:
    """Serve the project in a thread; yield its address."""
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.servers.basehttp import (
        ThreadedWSGIServer,
        WSGIRequestHandler,
        get_internal_wsgi_application,
    )

    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(StaticFilesHandler(get_internal_wsgi_application()))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def log_in() -> str:
    """Return the session of an operator."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ada", password=None))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def take(shots: list[Shot], site: str, session: str, options: argparse.Namespace) -> None:
    """Look at each page in Chromium, and keep what is seen."""
    from playwright.sync_api import sync_playwright

    options.to.mkdir(exist_ok=True)
    path = os.environ.get("ACTORS_TEST_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for shot in shots:
            if options.names and shot.name not in options.names:
                continue
            context = browser.new_context(viewport=shot.viewport, color_scheme=shot.scheme)
            context.add_cookies([{"name": "sessionid", "value": session, "url": site}])
            page = context.new_page()
            response = page.goto(site + shot.path, wait_until="load")
            if not response.ok:
                raise SystemExit(f"{shot.path} answered {response.status}.")
            file = options.to / f"{shot.name}{'-unfold' if options.unfold else ''}.png"
            page.screenshot(path=file)
            context.close()
            size = file.stat().st_size
            print(f"{file.name}: {size // 1024} KiB")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("names", nargs="*", help="of the pictures; all without any")
    parser.add_argument("--unfold", action="store_true", help="in the dress of django-unfold")
    parser.add_argument("--to", type=Path, default=IMAGES, metavar="DIRECTORY")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "testproject")]
    with tempfile.TemporaryDirectory() as directory:
        os.environ["DATABASE_URL"] = f"sqlite:///{directory}/shop.sqlite3"
        # Other settings may show another theme.
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
        # Playwright runs a loop in this thread; the queries do not mind.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        import django

        if options.unfold:
            wear_unfold()
        django.setup()
        from django.core.management import call_command

        logging.disable(logging.CRITICAL)
        call_command("migrate", verbosity=0)
        shop = load_shop()
        have_a_bad_day(shop)
        age_rows()
        have_workers(shop)
        with serve() as site:
            take(find_shots(), site, log_in(), options)


if __name__ == "__main__":
    main()
