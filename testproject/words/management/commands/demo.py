"""
``manage.py demo``: a site, its workers, and real work to watch.

Serves this project, starts ``runactors`` beside it, sends a few messages and says what became of
them. Nothing stays behind: the database lies in a temporary directory.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from django.core.servers.basehttp import (
    ThreadedWSGIServer,
    WSGIRequestHandler,
    get_internal_wsgi_application,
)
from django.db.models import QuerySet
from django.urls import reverse

from django_actors import Message
from django_actors.models import DeadLetter
from words.models import Page
from words.tasks import count_words, find_longest_word
from words.views import FABLES

from ._scene import describe_scene, set_scene

DIRECTORY_VARIABLE = "DJANGO_ACTORS_DEMO_DIRECTORY"
HOST = "127.0.0.1"
PREFERRED_PORT = 8000
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WORK_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15


@dataclass(frozen=True)
class Sent:
    """A message on its way, and the page that is there when it has run."""

    message: Message
    result: QuerySet[Page]
    note: str = ""
    should_die: bool = False

    def __str__(self) -> str:
        return f"{self.message}\n    {self.note}" if self.note else str(self.message)

    def has_run(self) -> bool:
        return self.result.exists()

    def is_dead(self) -> bool:
        return bool(DeadLetter.objects.filter(message_id=self.message.message_id))

    def is_settled(self) -> bool:
        return self.has_run() or self.is_dead()

    def ended_as_planned(self) -> bool:
        return self.is_dead() if self.should_die else self.has_run()


class Command(BaseCommand):
    help = "Serve the site, run workers and give them real work to do. Ctrl-C ends it."

    stopping = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("urls", nargs="*", help="pages to count (default: the site's own)")
        parser.add_argument(
            "--exit-when-done",
            action="store_true",
            help="end when each message has run or is a dead letter; exit code 1 if not as planned",
        )

    def handle(self, *, urls: list[str], exit_when_done: bool, **options: Any) -> None:
        directory = os.environ.pop(DIRECTORY_VARIABLE, None) or restart_with_own_database()
        for number in STOP_SIGNALS:
            signal.signal(number, self.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            password = prepare_database()
            with serve_site() as site:
                self.run(site, urls, password, exit_when_done=exit_when_done)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def stop(self, *signal_and_frame: object) -> None:
        self.stopping = True

    def run(self, site: str, urls: list[str], password: str, *, exit_when_done: bool) -> None:
        login = f"(user admin, password {password})"
        where = f"Site   {site}/", f"Admin  {site}{reverse('admin:index')}   {login}"
        self.say("The demo of django_actors. Ctrl-C ends it.", *where)
        sent = send_messages(site, urls)
        self.say(f"{len(sent)} messages are sent:", *map(str, sent))
        set_scene(site)
        self.say("Two worker processes start, and this is what they say:")
        with run_workers() as workers:
            self.wait(workers, until=lambda: all(s.is_settled() for s in sent))
            if not self.stopping:
                self.say(*summary(sent, site))
                self.say("There is more to look at in the admin:", *describe_scene(site), *where)
            if not self.stopping and not exit_when_done:
                self.say("Site and workers go on. Edit testproject/words/tasks.py: they reload.")
                self.wait(workers)
        if exit_when_done and not all(s.ended_as_planned() for s in sent):
            raise CommandError("Not every message ended as planned.")

    def wait(
        self, workers: subprocess.Popen[bytes], *, until: Callable[[], bool] | None = None
    ) -> None:
        """Return when *until* is true or took too long; without it, at Ctrl-C only."""
        deadline = time.monotonic() + WORK_TIMEOUT_S
        while not self.stopping:
            if workers.poll() is not None:
                raise CommandError(f"The workers ended with exit code {workers.returncode}.")
            if until and (until() or time.monotonic() > deadline):
                return
            time.sleep(0.1)

    def say(self, title: str, *lines: str) -> None:
        self.stdout.write("\n" + self.style.MIGRATE_HEADING(title))
        self.stdout.writelines(f"  {line}\n" for line in lines)
        self.stdout.flush()


def restart_with_own_database() -> NoReturn:
    """Run this command again, in this process, with a DATABASE_URL that nobody else uses."""
    # A Ctrl-C from here on waits until handle() has its handlers in place and can clean up.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    directory = tempfile.mkdtemp(prefix="django_actors_demo_")
    os.environ[DIRECTORY_VARIABLE] = directory
    os.environ["DATABASE_URL"] = f"sqlite:///{directory}/demo.sqlite3"
    os.execv(sys.executable, sys.orig_argv)


def prepare_database() -> str:
    """Create the tables and an admin user; return the password."""
    call_command("migrate", verbosity=0)
    password = secrets.token_urlsafe(6)
    get_user_model().objects.create_superuser("admin", password=password)
    return password


@contextmanager
def serve_site() -> Iterator[str]:
    """Serve this project in a thread; yield its address."""
    try:
        server = ThreadedWSGIServer((HOST, PREFERRED_PORT), WSGIRequestHandler)
    except OSError:  # somebody else has the port
        server = ThreadedWSGIServer((HOST, 0), WSGIRequestHandler)
    server.set_app(StaticFilesHandler(get_internal_wsgi_application()))
    # The workers are to be heard, not each page they ask for.
    for name in ("django.request", "django.server"):
        logging.getLogger(name).setLevel(logging.ERROR)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send_messages(site: str, urls: list[str]) -> list[Sent]:
    """Send one message of each kind. They wait in the queue until there is a worker."""
    fables = [site + reverse("words:fable", args=[slug]) for slug in FABLES]
    pages = urls or fables
    lost = site + reverse("words:fable", args=["the-lost-fable"])
    later = site + reverse("words:index")
    counted = Page.objects.filter(words__isnull=False)
    looked_at = Page.objects.exclude(longest_word="")
    return [
        *(Sent(count_words.send(url), counted.filter(url=url)) for url in pages),
        Sent(
            count_words.send(lost),
            counted.filter(url=lost),
            "is not there: two retries, then a dead letter",
            should_die=True,
        ),
        Sent(
            count_words.send_with_options(args=(later,), delay=5_000),
            counted.filter(url=later),
            "runs in 5 seconds",
        ),
        Sent(
            find_longest_word.send(fables[0]),
            looked_at.filter(url=fables[0]),
            "is sent last and among the first to run: its priority is higher",
        ),
    ]


@contextmanager
def run_workers() -> Iterator[subprocess.Popen[bytes]]:
    """Run ``runactors --watch`` beside this process."""
    options = ["--processes", "2", "--threads", "2", "--watch", str(settings.BASE_DIR)]
    workers = subprocess.Popen(
        [sys.executable, sys.argv[0], "runactors", *options],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        # A group of its own: Ctrl-C reaches this process only, which then stops the workers once.
        process_group=0,
    )
    try:
        yield workers
    finally:
        workers.terminate()
        try:
            workers.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            workers.kill()


def summary(sent: list[Sent], site: str) -> list[str]:
    """Tell how the messages ended; the title first."""
    dead_letters = site + reverse("admin:django_actors_deadletter_changelist")
    return [
        f"{sum(s.has_run() for s in sent)} of {len(sent)} messages have run.",
        *(f"Dead letter: {s.message}\n    see {dead_letters}" for s in sent if s.is_dead()),
        *(f"Still waiting: {s.message}" for s in sent if not s.is_settled()),
    ]
