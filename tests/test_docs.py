"""
The documentation tells the truth: its tables say what the code says, and its examples run.

Where a code block begins with ``# some/file.py`` it is that file; the blocks after it are run as
if they stood in a shell of the project.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import environ
from django.db import IntegrityError
from django.test import SimpleTestCase, TestCase, override_settings, tag

from django_actors import Message, actor, brokers, conf, control, errors, supervisor
from django_actors.actor import Actor
from django_actors.checks import check_settings
from django_actors.delivery import Delivery, Reason
from django_actors.management.commands import actors, runactors
from django_actors.management.commands._asking import BAD_ARGUMENT, FILTERS, Subcommands
from django_actors.management.commands._flags import FLAGS
from django_actors.management.commands.actors import UNHEALTHY
from django_actors.middleware import Middleware
from django_actors.middleware.base import HOOK_NAMES, build_middleware
from django_actors.models import DeadLetter
from django_actors.options import ENGINE_OPTIONS, known_options
from django_actors.registry import registry
from django_actors.rows import build_delivery_row
from django_actors.test import assert_sent, run_actors, sent
from django_actors.waiting_room import WaitingRoom

from .projects import ROOT, TIMEOUT_S, clean_environment, end_group
from .support import keep_log
from .test_layers import FLOOR_OF

DOCS = ROOT / "docs"
PACKAGE = ROOT / "django_actors"

# Whose Python blocks are run here; other pages have tests of their own.
PAGES = [
    "README.md",
    "docs/reference/settings.md",
    "docs/reference/actor-options.md",
    "docs/reference/control.md",
    "docs/reference/environment.md",
    "docs/how-to/pick-a-broker.md",
    "docs/how-to/redis.md",
    "docs/how-to/rabbitmq.md",
    "docs/how-to/move-between-brokers.md",
    "docs/how-to/move-from-another-queue.md",
    "docs/how-to/send-after-commit.md",
    "docs/how-to/sign-messages.md",
    "docs/how-to/write-a-middleware.md",
    "docs/how-to/zero-downtime-deploys.md",
    "docs/how-to/requeue-a-dead-letter.md",
    "docs/how-to/add-a-broker.md",
    "docs/explanation/delivery-guarantees.md",
]

# Their tests are TutorialTests, and tests/testing/test_docs.py.
TESTED_ELSEWHERE = {
    "docs/tutorial.md",
    "docs/how-to/test-an-actor.md",
    "docs/how-to/move-your-tests.md",
}

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (at the end of )?([\w/]+\.py)\n")
_LINK = re.compile(r"\]\(([^)#\s]+\.md)?(#[\w-]+)?\)")
_PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
_CHECK_ID = re.compile(r'"(?:django_actors\.)?([EWI]\d{3})"')


class Block(NamedTuple):
    """A block of code: its language, the file it is (if it says so), its text."""

    language: str
    file: str
    text: str


def read_blocks(page: str) -> list[Block]:
    blocks = []
    for found in _BLOCK.finditer((ROOT / page).read_text()):
        text = textwrap.dedent(found[3])
        named = _FILE.match(text)
        blocks.append(Block(found[2], named[2] if named else "", text))
    return blocks


def read_rows(page: str, *header: str) -> list[list[str]]:
    """Return the cells of every row of the table that begins with *header*."""
    lines = (DOCS / page).read_text().splitlines()
    tables = [n for n, line in enumerate(lines) if split_row(line)[: len(header)] == list(header)]
    if len(tables) != 1:
        raise AssertionError(f"{page} has {len(tables)} tables {header}")
    rows = []
    for line in lines[tables[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(split_row(line))
    return rows


def split_row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def value_of(cell: str, **names: Any) -> Any:
    """Return what a cell with a default says, ``none`` and ``off`` being words."""
    if cell.startswith("`"):
        return eval(cell.strip("`"), {"timedelta": timedelta, **names})
    return {"none": None, "off": None, "all": None}.get(cell, cell)


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


class ReferenceTests(SimpleTestCase):
    """Each table is compared with the code, both ways."""

    maxDiff = None

    def test_settings(self):
        rows = read_rows("reference/settings.md", "key", "default")

        told = {
            names_in(row[0])[0]: value_of(row[1], DEFAULT_MIDDLEWARE=conf.DEFAULT_MIDDLEWARE)
            for row in rows
        }

        self.assertEqual(told, {name: each.default for name, each in conf.SETTINGS.items()})

    def test_default_middleware(self):
        lists = [b.text for b in read_blocks("docs/reference/settings.md") if b.text[0] == "D"]
        namespace: dict[str, Any] = {}
        exec(lists[-1], namespace)
        rows = read_rows("reference/settings.md", "middleware", "what it does")

        self.assertEqual(namespace["DEFAULT_MIDDLEWARE"], conf.DEFAULT_MIDDLEWARE)
        self.assertEqual(
            {names_in(row[0])[0]: names_in(row[2]) for row in rows},
            {type(each).__name__: arguments_of(type(each)) for each in build_middleware()},
        )

    def test_transaction_modes(self):
        rows = read_rows("reference/settings.md", "value")

        for row in rows:
            conf.SETTINGS["ON_TRANSACTION"].clean("ON_TRANSACTION", value_of(row[0]))
        self.assertEqual(len(rows), 3)

    def test_actor_options(self):
        rows = read_rows("reference/actor-options.md", "option", "default")

        told = {names_in(row[0])[0]: value_of(row[1], Actor=Actor) for row in rows}

        self.assertEqual(told, actor_options())

    def test_flags_of_runactors(self):
        rows = read_rows("reference/runactors.md", "flag", "variable")

        told = {
            names_in(row[0])[0].split()[0]: (names_in(row[1])[0], value_of(row[2])) for row in rows
        }

        # The number of cores depends on the machine.
        defaults = {"processes": "CPU cores"}
        self.assertEqual(
            told,
            {
                f"--{flag.name}": (flag.variable, defaults.get(flag.name, flag.default()))
                for flag in FLAGS
            },
        )

    def test_floors(self):
        rows = read_rows("explanation/architecture.md", "floor", "modules")

        for row in rows:
            for name in names_in(row[1]):
                with self.subTest(name):
                    self.assertEqual(FLOOR_OF[name], int(row[0]))

    def test_environment_variables(self):
        rows = read_rows("reference/environment.md", "variable", "flag")

        self.assertEqual(
            [(names_in(row[0]), names_in(row[1])) for row in rows],
            [([flag.variable], [f"--{flag.name}"]) for flag in FLAGS],
        )
        for flag, row in zip(FLAGS, rows, strict=True):
            flag.read(names_in(row[2])[0])

    def test_exit_codes(self):
        rows = read_rows("reference/signals-and-exit-codes.md", "code")

        codes = {
            supervisor.STOPPED,
            supervisor.KILLED,
            supervisor.NOT_BOOTABLE,
            supervisor.BROKER_UNREACHABLE,
            runactors.PID_FILE_TAKEN,
        }
        self.assertEqual({int(row[0]) for row in rows}, codes)

    def test_signals(self):
        rows = read_rows("reference/signals-and-exit-codes.md", "signal")

        told = " ".join(row[0] for row in rows)

        handled = {each.name for each in supervisor.SIGNALS} - {signal.SIGCHLD.name}
        self.assertEqual(set(re.findall(r"SIG[A-Z]+", told)), {*handled, signal.SIGKILL.name})

    def test_hooks_and_their_arguments(self):
        rows = read_rows("reference/hooks.md", "hook")

        told = {name: ", ".join(names_in(row[1])) for row in rows for name in names_in(row[0])}

        self.assertEqual(told, {name: hook_arguments(name) for name in HOOK_NAMES})

    def test_error_classes(self):
        rows = read_rows("reference/errors.md", "error")

        told = {names_in(row[0])[0]: names_in(row[1])[0] for row in rows}

        self.assertEqual(set(told), set(error_classes()))
        for name, base in told.items():
            bases = [each.__name__ for each in error_classes()[name].__mro__[1:]]
            self.assertIn(base, bases, name)

    def test_reasons(self):
        rows = read_rows("reference/errors.md", "reason")

        self.assertEqual({names_in(row[0])[0] for row in rows}, {str(each) for each in Reason})

    def test_check_ids(self):
        text = (DOCS / "reference" / "checks.md").read_text()

        told = Counter(re.findall(r"^\| `django_actors\.(\w+)`", text, re.MULTILINE))

        sources = (path.read_text() for path in PACKAGE.rglob("*.py"))
        self.assertEqual(set(told), {each for text in sources for each in _CHECK_ID.findall(text)})
        self.assertEqual(set(told.values()), {1})

    def test_commands_of_actors_and_their_flags(self):
        commands = read_rows("reference/actors-command.md", "command")
        flags = read_rows("reference/actors-command.md", "flag", "meaning")

        told = {names_in(row[0])[0]: flags_in(row[2]) for row in commands}

        self.assertEqual(told, dict(commands_of_actors()))
        self.assertEqual(
            {names_in(row[0])[0] for row in flags}, {"--json", *itertools.chain(*told.values())}
        )

    def test_exit_codes_and_problems_of_actors(self):
        codes = read_rows("reference/actors-command.md", "code")
        problems = read_rows("reference/actors-command.md", "problem")

        known = re.findall(r"``([a-z]+-[a-z]+)``", control.Problem.__doc__ or "")

        self.assertEqual({int(names_in(row[0])[0]) for row in codes}, {0, UNHEALTHY, BAD_ARGUMENT})
        self.assertEqual({names_in(row[0])[0] for row in problems}, set(known))

    def test_functions_of_control(self):
        rows = read_rows("reference/control.md", "function")

        functions = {
            f"{name}({arguments_told(function)})"
            for name, function in vars(control).items()
            if name in control.__all__ and inspect.isfunction(function)
        }
        self.assertEqual({names_in(row[0])[0] for row in rows}, functions)

    def test_what_control_returns_is_told_of(self):
        text = (DOCS / "reference" / "control.md").read_text()

        for name in control.__all__:
            self.assertIn(f"`{name}", text)
        for field in dataclasses.fields(control.QueueInfo):
            self.assertIn(f"`{field.name}`", text)

    def test_schemes_of_brokers(self):
        rows = read_rows("reference/brokers.md", "scheme")

        told = {
            scheme.partition("://")[0]: names_in(row[1])[0]
            for row in rows
            for scheme in names_in(row[0])
        }

        self.assertEqual(told, brokers.SCHEMES)

    def test_message_format(self):
        (block,) = (b for b in read_blocks("docs/reference/message-format.md"))
        rows = read_rows("reference/message-format.md", "field")

        message = Message.decode(block.text.strip().encode())

        self.assertEqual(message.encode(), block.text.strip().encode())
        self.assertEqual([names_in(row[0])[0] for row in rows], list(json.loads(block.text)))


FILTER_FLAGS = {f"--{name.replace('_', '-')}" for name in FILTERS}


def flags_in(cell: str) -> set[str]:
    """Return the flags a cell names; ``filters`` stands for several."""
    filters = FILTER_FLAGS if "filters" in cell else set()
    return {name for name in names_in(cell) if name.startswith("--")} | filters


def commands_of_actors() -> Iterator[tuple[str, set[str]]]:
    """Return every command of ``manage.py actors`` and its flags, without ``--json``."""
    parser = actors.Command().create_parser("manage.py", "actors")
    waiting: list[tuple[tuple[str, ...], Any]] = [((), parser)]
    while waiting:
        names, parser = waiting.pop()
        below = [a for a in parser._actions if isinstance(a, Subcommands)]
        waiting += [((*names, n), p) for a in below for n, p in a._name_parser_map.items()]
        if not below:
            flags = {each for a in parser._actions for each in a.option_strings}
            yield " ".join(names), {f for f in flags if f[:2] == "--"} - {"--help", "--json"}


def arguments_told(function: Any) -> str:
    """Return the parameters of a function as the reference writes them."""
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return ", ".join([*names, *(["*", *keywords] if keywords else [])])


def arguments_of(kind: type) -> list[str]:
    """Return the names of what a middleware of the package can be given."""
    return list(inspect.signature(kind).parameters) if "__init__" in vars(kind) else []


def actor_options() -> dict[str, Any]:
    """Return every option of ``@actor`` with its default."""
    parameters = inspect.signature(actor).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    found |= dict.fromkeys(ENGINE_OPTIONS, ())
    for name, middleware in known_options(build_middleware()).items():
        if middleware is not None:
            parameter = inspect.signature(type(middleware)).parameters.get(name)
            found[name] = parameter.default if parameter else None
    return found


def hook_arguments(name: str) -> str:
    """Return what a hook is given after the broker, as the reference writes it."""
    parameters = list(inspect.signature(getattr(Middleware, name)).parameters.values())[2:]
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return ", ".join([*names, "*", *keywords] if keywords else names)


def error_classes() -> Mapping[str, type[BaseException]]:
    return {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, (errors.ActorsError, errors.Interrupt))
    }


class PageTests(SimpleTestCase):
    """What holds for every page."""

    def pages(self) -> Iterator[Path]:
        yield from (path for path in DOCS.rglob("*.md") if "_build" not in path.parts)

    def test_every_link_to_a_page_leads_somewhere(self):
        for path in [*self.pages(), *ROOT.glob("*.md")]:
            for page, anchor in _LINK.findall(path.read_text()):
                target = path.parent / page if page else path
                with self.subTest(path=path.name, link=page + anchor):
                    self.assertTrue(target.exists())
                    self.assertIn(anchor[1:], ["", *anchors_of(target)])

    def test_every_picture_is_there(self):
        for path in [*self.pages(), *ROOT.glob("*.md")]:
            for picture in _PICTURE.findall(path.read_text()):
                with self.subTest(path=path.name, picture=picture):
                    self.assertTrue((path.parent / picture).exists())

    def test_every_page_says_first_what_its_reader_will_have(self):
        for path in self.pages():
            with self.subTest(path.name):
                title, nothing, first = path.read_text().splitlines()[:3]

                self.assertTrue(title.startswith("# "))
                self.assertEqual(nothing, "")
                self.assertTrue(first.startswith("At the end of this page "), first)

    def test_every_page_with_examples_is_run(self):
        names = [str(path.relative_to(ROOT)) for path in [*self.pages(), *ROOT.glob("*.md")]]

        with_examples = {
            name for name in names if any(b.language == "python" for b in read_blocks(name))
        }

        self.assertEqual(with_examples, {*PAGES, *TESTED_ELSEWHERE})

    def test_every_python_block_is_python(self):
        for path in self.pages():
            for block in read_blocks(str(path.relative_to(ROOT))):
                if block.language == "python":
                    with self.subTest(path.name):
                        compile(block.text, str(path), "exec")


def anchors_of(path: Path) -> list[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


class Page:
    """Runs the Python blocks of a page, as a project that has its files would."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.namespace: dict[str, Any] = {"__name__": "__main__", "BASE_DIR": ROOT}
        self.output = io.StringIO()

    def run(self) -> None:
        """Run all blocks in their order; those that are files become modules."""
        with contextlib.redirect_stdout(self.output):
            for block in read_blocks(self.page):
                if block.language == "python":
                    self._run(block)

    def _run(self, block: Block) -> None:
        if block.file == "settings.py":
            self._use_settings(block.text)
            return
        namespace = self.namespace
        if block.file:
            namespace = vars(make_module(block.file))
        exec(compile(block.text, self.page, "exec"), namespace)
        if block.file:
            self.namespace.update({k: v for k, v in namespace.items() if k[0] != "_"})

    def _use_settings(self, text: str) -> None:
        settings: dict[str, Any] = {"BASE_DIR": ROOT, "env": environ.Env()}
        exec(compile(text, self.page, "exec"), settings)
        if "DJANGO_ACTORS" not in settings:
            return
        contexts.enter_context(override_settings(DJANGO_ACTORS=settings["DJANGO_ACTORS"]))
        if found := check_settings():
            raise AssertionError(f"{self.page}: {found}")

    def lines(self) -> list[str]:
        return self.output.getvalue().splitlines()


# What pages put in place; emptied after each of them.
contexts = contextlib.ExitStack()


def make_module(file: str) -> types.ModuleType:
    """Return a new module for a file, in the place of one that is not a file either."""
    name = file.removesuffix(".py").replace("/", ".")
    parent, _, child = name.rpartition(".")
    module = types.ModuleType(name)
    package = sys.modules.setdefault(parent, types.ModuleType(parent))
    package.__path__ = []
    sys.modules[name] = module
    setattr(package, child, module)
    return module


def name_in_app(function: Any) -> str:
    """Return the name an actor has if its app is installed."""
    return f"{function.__module__.partition('.')[0]}.{function.__name__}"


@contextlib.contextmanager
def room_for_pages() -> Iterator[None]:
    """Forget the modules, actors and settings of pages afterwards."""
    before = set(registry.actors())
    with mock.patch.dict(sys.modules), mock.patch("django_actors.actor._default_name", name_in_app):
        for name in ("shop", "shop.tasks", "library"):
            sys.modules.pop(name, None)
        try:
            yield
        finally:
            contexts.close()
            for name in set(registry.actors()) - before:
                registry.remove(name)


class ExampleTests(TestCase):
    """The Python blocks of the pages run, and do what the pages say."""

    def setUp(self) -> None:
        self.log = keep_log(self)
        web = mock.patch("urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"one two"))
        self.enterContext(web)
        self.enterContext(room_for_pages())

    def run_page(self, page: str) -> Page:
        found = Page(page)
        found.run()
        return found

    def run_what_was_sent(self, page: Page) -> list[str]:
        with contextlib.redirect_stdout(page.output):
            return [str(result.outcome) for result in run_actors(until_idle=True)]

    def test_every_block_of_every_page_runs(self):
        for name in PAGES:
            with self.subTest(name), room_for_pages():
                self.run_page(name)

    def test_the_lines_of_the_readme(self):
        page = self.run_page("README.md")

        self.assertEqual(len(sent()), 3)
        self.assertEqual(self.run_what_was_sent(page), ["done"] * 3)
        self.assertEqual(page.lines(), ["There are 2 words at 'https://example.com'."] * 4)

    def test_what_is_rolled_back_was_not_sent_but_the_report_was(self):
        page = self.run_page("docs/how-to/send-after-commit.md")

        with self.assertRaises(IntegrityError):
            page.namespace["sign_up_or_report"]("ada")

        self.assertEqual(len(sent(page.namespace["welcome"])), 1)
        assert_sent(page.namespace["report"], "ada")
        self.run_what_was_sent(page)
        self.assertEqual(page.lines(), ["Welcome, ada!"])

    def test_a_middleware_with_an_option(self):
        page = self.run_page("docs/how-to/write-a-middleware.md")

        with self.assertLogs("shop.middleware") as log:
            self.run_what_was_sent(page)

        self.assertEqual(page.lines(), ["Hello, Ada!"])
        self.assertRegex(log.output[0], r"of shop\.greet took \d+ ms")

    def test_messages_survive_a_deploy(self):
        page = self.run_page("docs/how-to/zero-downtime-deploys.md")
        page.namespace["send_receipt"].send(7)

        self.run_what_was_sent(page)

        self.assertEqual(page.lines()[-1], "Receipt 7 in en")
        self.assertEqual(page.lines()[:3], ["Page 1", "Page 2", "Page 3"])

    def test_an_idempotency_key_is_the_message_id(self):
        page = self.run_page("docs/explanation/delivery-guarantees.md")
        keys: list[str] = []
        module = sys.modules["shop.tasks"]
        vars(module)["pay"] = lambda order, *, idempotency_key: keys.append(idempotency_key)

        message = page.namespace["charge"].send(7)
        self.run_what_was_sent(page)

        self.assertEqual(keys, [message.message_id])

    def test_a_dead_letter_is_requeued_in_code(self):
        message = Message("default", "shop.divide", (1, 0), {}, {})
        delivery = Delivery(message.encode(), queue_name="default", message=message)
        delivery.exception = ZeroDivisionError("division by zero")
        delivery.fail(Reason.RETRIES_EXHAUSTED)
        WaitingRoom().put([build_delivery_row(delivery)])

        page = self.run_page("docs/how-to/requeue-a-dead-letter.md")

        self.assertIn("division by zero", page.lines()[0])
        self.assertEqual(page.lines()[1], "1 messages run again.")
        self.assertFalse(DeadLetter.objects.exists())


def tests_of_the_page() -> type[TestCase]:
    """Return the test class of the page about brokers: its broker does all that one has to do."""
    with room_for_pages():
        page = Page("docs/how-to/add-a-broker.md")
        page.run()
    tests = type("BrokerTests", (page.namespace["MemoryBrokerTests"],), {"__module__": __name__})
    return tag("sqlite")(tests)  # One database is enough.


BrokerTests = tests_of_the_page()


REQUEUE = """
import re
from django.contrib.auth.models import User
from django.test import Client
from django_actors.models import DeadLetter
[letter] = DeadLetter.objects.all()
client = Client(SERVER_NAME="localhost", raise_request_exception=True)
client.force_login(User.objects.get(username="admin"))
url = f"/admin/django_actors/deadletter/{letter.pk}/requeue/"
page = client.get(url)
assert page.status_code == 200, page
fields = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.content.decode())
page = client.post(url, dict(fields))
assert page.status_code == 302, page.content
"""


class Web(BaseHTTPRequestHandler):
    """The World Wide Web: a proxy that has the same page at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"These are five words here.")

    def log_message(self, *args: Any) -> None: ...


@tag("processes")
class TutorialTests(SimpleTestCase):
    """Follows the tutorial in a directory of its own, as its reader would."""

    python = sys.executable
    packages = str(ROOT)

    def setUp(self) -> None:
        self.directory = Path(
            self.enterContext(tempfile.TemporaryDirectory(prefix="django_actors_tutorial_"))
        )
        self.log_path = self.directory / "runactors.log"
        self.expected: Counter[str] = Counter()
        self.requeued = False
        web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        unwanted = ("no_proxy", "pythondevmode")
        self.environment = {
            **{k: v for k, v in clean_environment().items() if k.lower() not in unwanted},
            "http_proxy": f"http://127.0.0.1:{web.server_port}",
            "PYTHONPATH": self.packages,
            "DJANGO_SUPERUSER_USERNAME": "admin",
            "DJANGO_SUPERUSER_PASSWORD": "secret",
            "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
        }

    def test_from_startproject_to_a_requeued_dead_letter(self):
        for block in read_blocks("docs/tutorial.md"):
            # No encryption between this test and its web.
            text = block.text.replace("https://", "http://")
            {"console": self.type, "python": self.write, "text": self.expect}[block.language](
                text, block
            )

        self.assertTrue(self.requeued)

    def type(self, text: str, block: Block) -> None:
        """Run the commands of a block, and compare what they print."""
        for command, printed in re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", text, re.MULTILINE):
            output = self.run_command(shlex.split(command))
            if printed:
                self.assertRegex(output, as_pattern(printed), command)

    def run_command(self, words: list[str]) -> str:
        if words[0] in ("python3", ".", "pip") or "runserver" in words:
            return ""
        if words[0] == "cd":
            self.directory /= words[1]
            return ""
        words[:1] = {"django-admin": ["-m", "django"], "python": []}[words[0]]
        if "runactors" in words:
            self.start(words)
            return ""
        if "createsuperuser" in words:
            words.append("--no-input")
        return self.run_python(words)

    def run_python(self, words: list[str]) -> str:
        done = subprocess.run(
            [self.python, *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def start(self, words: list[str]) -> None:
        with self.log_path.open("a") as log:
            process = subprocess.Popen(
                [self.python, *words],
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.addCleanup(end_group, process)

    def write(self, text: str, block: Block) -> None:
        """Write a file as the block says, or its end."""
        path = self.directory / block.file
        before = path.read_text() if text.startswith("# at the end of") else ""
        path.write_text(before + text)
        if '"://" not in url' in text:
            # The reader needs longer for the way to the admin than the workers to reload.
            self.wait_for("All worker processes run the code of now.")
            self.run_python(["manage.py", "shell", "-v0", "-c", REQUEUE])
            self.requeued = True

    def expect(self, text: str, block: Block) -> None:
        """Wait for lines of the log, once more than before."""
        for line in text.splitlines():
            self.wait_for(line)

    def wait_for(self, line: str) -> None:
        self.expected[line] += 1
        until = time.monotonic() + TIMEOUT_S
        while len(re.findall(as_pattern(line), self.log())) < self.expected[line]:
            if time.monotonic() > until:
                self.fail(f"Waited in vain for {line!r}.\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        return self.log_path.read_text() if os.path.exists(self.log_path) else ""


def as_pattern(text: str) -> str:
    """Return a pattern for what is printed: numbers and ids are others each time."""
    pattern = re.sub(r"[0-9a-f]{8}\\-[0-9a-f\\-]{27,31}", "[0-9a-f-]{36}", re.escape(text.strip()))
    return re.sub(r"(?<![{\[\w-])\d+(?![\w}-])", r"\\d+", pattern)
