"""
The engine is a house of five floors, and imports only point down.

A new module has to be given a floor here. Imports for the type checker alone are free.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.test import SimpleTestCase

import django_actors

PACKAGE = Path(django_actors.__file__).parent

# A package has the floor of its name; what it holds stands on the same one.
FLOORS = {
    5: "apps checks admin test management pytest_plugin worker_settings",
    4: "supervisor watch worker dispatcher executor"
    " board channel children crew forking gate intake logs past pidfile process recoverer"
    " recovery rollout control pace reporter slots start_reporter watchdog work_heap",
    3: "actor generic_actor brokers options",
    2: "waiting_room rows models migrations middleware claims crashes outbox wakeup"
    " counts failures isolation journal memory_queue memory_room moves pauses roster starts",
    1: "message registry conf backoff chunks errors clock delivery encoding file_events"
    " fingerprints garbage memory parameters redaction signing cures interrupts",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}

# The public names, `from django_actors import ...`: for projects, not for the engine itself.
ROOT = ""


# What the adapters have in common.
SHARED = {"brokers.base", "brokers.concerns", "brokers.consumer", "brokers.urls"}


class Arrow(NamedTuple):
    """One import: from which module, in which line, to which module."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target or 'the public names'}"

    def points_up(self) -> bool:
        return floor_of(self.target) > floor_of(self.source)


class LayerTests(SimpleTestCase):
    def test_every_module_has_a_floor(self):
        unknown = {name.split(".")[0] for name in MODULES if name} - set(FLOOR_OF)

        self.assertFalse(
            unknown, f"Give {', '.join(sorted(unknown))} a floor: add it to FLOORS in this file."
        )

    def test_no_import_points_up(self):
        upward = [str(arrow) for arrow in ARROWS if arrow.points_up()]

        self.assertEqual(upward, [])

    def test_an_adapter_never_imports_another_adapter(self):
        adapters = {name for name in MODULES if name.startswith("brokers.")} - SHARED

        met = [
            str(arrow)
            for arrow in ARROWS
            if {arrow.source, arrow.target} <= adapters
            and adapter_of(arrow.source) != adapter_of(arrow.target)
        ]

        self.assertEqual(met, [])

    def test_the_supervisor_reaches_no_broker_and_no_model(self):
        reached = reachable_from("supervisor")

        self.assertEqual({name for name in reached if floor_of(name) in (2, 3)}, set())

    def test_the_public_names_load_no_model(self):
        code = (
            "import sys, django_actors\n"
            "models = {'django_actors.models', 'django.db.models'} & set(sys.modules)\n"
            "sys.exit(', '.join(models) or None)"
        )

        process = subprocess.run(
            [sys.executable, "-c", code],
            cwd=PACKAGE.parent,
            env={},
            capture_output=True,
            text=True,
        )

        self.assertEqual((process.returncode, process.stderr), (0, ""))


def adapter_of(name: str) -> str:
    """Return the adapter a module belongs to: `brokers.redis_scripts` is a part of Redis."""
    return name.removeprefix("brokers.").partition("_")[0]


class ReadingTests(SimpleTestCase):
    """The reader of imports, without which the tests above would pass on anything."""

    def test_relative_and_absolute_imports_are_seen(self):
        source = "from . import clock\nfrom .message import Message\nimport django_actors.models\n"

        self.assertEqual(self.targets("conf", source), ["clock", "message", "models"])

    def test_imports_inside_a_function_and_of_a_package_are_seen(self):
        source = "def f():\n    from ..brokers import base, get_broker\n"

        self.assertEqual(self.targets("middleware.base", source), ["brokers.base", "brokers"])

    def test_imports_for_the_type_checker_are_free(self):
        source = (
            "if TYPE_CHECKING:\n    from .worker import Worker\nelse:\n    from . import conf\n"
        )

        self.assertEqual(self.targets("actor", source), ["conf"])

    def targets(self, module: str, source: str) -> list[str]:
        return [arrow.target for arrow in read_arrows(module, ast.parse(source))]


def floor_of(module: str) -> int:
    """Return the floor of a module; the public names stand on top of all."""
    return FLOOR_OF.get(module.split(".")[0], max(FLOORS))


def reachable_from(module: str) -> set[str]:
    """Return every module that is loaded because *module* is."""
    reached, waiting = set(), [module]
    while waiting:
        source = waiting.pop()
        if source not in reached:
            reached.add(source)
            waiting += [arrow.target for arrow in ARROWS if arrow.source == source]
    return reached


def read_arrows(module: str, node: ast.AST) -> Iterator[Arrow]:
    """Find the imports of this package below *node*, also those inside functions."""
    for child in children(node):
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = imported_names(module, child)
        else:
            yield from read_arrows(module, child)
            continue
        for name in names:
            package, _, target = name.partition(".")
            if package == "django_actors" and target != "__version__":
                yield Arrow(module, child.lineno, known_module(target))


def children(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return list(node.orelse)
    return list(ast.iter_child_nodes(node))


def imported_names(module: str, node: ast.ImportFrom) -> list[str]:
    """Return the full dotted names that a `from ... import ...` asks for."""
    base = node.module or ""
    if node.level:
        parts = ["django_actors", *module.split(".")] if module else ["django_actors"]
        is_package = (PACKAGE / Path(*parts[1:]) / "__init__.py").exists()
        depth = len(parts) - node.level + is_package
        base = ".".join([*parts[:depth], *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def known_module(name: str) -> str:
    """Return *name*, or what holds it: a class stands in its module."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def find_modules() -> dict[str, Path]:
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(p.parts).removesuffix("__init__").rstrip("."): f for p, f in paths.items()}


MODULES = find_modules()
ARROWS = [
    arrow
    for name, path in MODULES.items()
    if name != ROOT
    for arrow in read_arrows(name, ast.parse(path.read_text()))
]
