"""The app: it finds every app's actors, in every process."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any
from unittest import mock

from django.apps import apps
from django.test import SimpleTestCase

import django_actors
from django_actors import garbage
from django_actors.apps import autodiscover
from django_actors.registry import registry

from .support import actors_settings

ACTOR = """
from django_actors import actor

@actor
def {name}(): ...
"""


class AppCase(SimpleTestCase):
    """Writes apps into a temporary directory; their modules and actors are gone after the test."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory(prefix="django_actors_apps_")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        sys.path.insert(0, directory.name)
        self.addCleanup(sys.path.remove, directory.name)
        self.addCleanup(self.forget, set(sys.modules), set(registry.actors()))

    def forget(self, modules: set[str], actors: set[str]) -> None:
        for name in set(sys.modules) - modules:
            del sys.modules[name]
        for name in set(registry.actors()) - actors:
            registry.remove(name)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.directory / name
            for package in (*path.parents[:-1], path.parent):
                if package.is_relative_to(self.directory) and package != self.directory:
                    package.mkdir(exist_ok=True, parents=True)
                    (package / "__init__.py").touch()
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()

    def install(self, *names: str) -> None:
        """Install apps, as in INSTALLED_APPS; Django gets ready again."""
        self.enable(self.modify_settings(INSTALLED_APPS={"append": list(names)}))

    def enable(self, context: Any) -> None:
        """Change settings until the test ends."""
        context.enable()
        self.addCleanup(context.disable)

    def actors_of(self, label: str) -> set[str]:
        return {name for name in registry.actors() if name.startswith(f"{label}.")}


class DiscoveryTests(AppCase):
    def test_a_module_called_tasks_is_imported(self):
        self.write({"pantry/tasks.py": ACTOR.format(name="restock")})

        self.install("pantry")

        self.assertEqual(self.actors_of("pantry"), {"pantry.restock"})

    def test_a_package_called_tasks_is_imported_with_all_that_is_in_it(self):
        self.write(
            {
                "pantry/tasks/__init__.py": ACTOR.format(name="restock"),
                "pantry/tasks/weekly.py": ACTOR.format(name="clean"),
                "pantry/tasks/deep/down.py": ACTOR.format(name="dig"),
            }
        )

        self.install("pantry")

        self.assertEqual(self.actors_of("pantry"), {"pantry.restock", "pantry.clean", "pantry.dig"})

    def test_the_label_of_an_app_names_its_actors(self):
        self.write(
            {
                "pantry/apps.py": """
                    from django.apps import AppConfig

                    class PantryConfig(AppConfig):
                        name = "pantry"
                        label = "kitchen"
                """,
                "pantry/tasks.py": ACTOR.format(name="restock"),
            }
        )

        self.install("pantry.apps.PantryConfig")

        self.assertEqual(self.actors_of("kitchen"), {"kitchen.restock"})

    def test_an_app_without_actors_is_fine(self):
        self.write({"pantry/models.py": ""})

        self.install("pantry")

        self.assertEqual(self.actors_of("pantry"), set())

    def test_two_apps_may_have_actors_of_one_name(self):
        self.write(
            {
                "pantry/tasks.py": ACTOR.format(name="clean"),
                "cellar/tasks.py": ACTOR.format(name="clean"),
            }
        )

        self.install("pantry", "cellar")

        self.assertEqual(
            self.actors_of("pantry") | self.actors_of("cellar"), {"pantry.clean", "cellar.clean"}
        )

    def test_the_setting_says_what_the_modules_are_called(self):
        self.write(
            {
                "pantry/tasks.py": ACTOR.format(name="unseen"),
                "pantry/actors.py": ACTOR.format(name="restock"),
                "pantry/background/jobs.py": ACTOR.format(name="clean"),
            }
        )

        self.enable(actors_settings(AUTODISCOVER=["actors", "background", "no_such_module"]))
        self.install("pantry")

        self.assertEqual(self.actors_of("pantry"), {"pantry.restock", "pantry.clean"})

    def test_getting_ready_again_finds_nothing_twice(self):
        self.write({"pantry/tasks.py": ACTOR.format(name="restock")})
        self.install("pantry")

        apps.get_app_config("django_actors").ready()

        self.assertEqual(self.actors_of("pantry"), {"pantry.restock"})

    def test_an_error_in_such_a_module_is_not_hidden(self):
        for number, (source, kind) in enumerate(
            (
                ("import no_such_module", ModuleNotFoundError),
                ("1 / 0", ZeroDivisionError),
                (ACTOR.format(name="wrong").replace("@actor", "@actor(no=1)"), ValueError),
            )
        ):
            name = f"pantry{number}"
            self.write({f"{name}/tasks.py": source})
            with self.subTest(source), self.assertRaises(kind):
                self.install(name)
            self.addCleanup(apps.clear_cache)

    def test_an_error_deep_in_a_package_is_not_hidden(self):
        self.write({"pantry/tasks/deep/down.py": "import no_such_module"})

        with self.assertRaises(ModuleNotFoundError):
            self.install("pantry")

    def test_the_actors_of_this_test_suite_were_found(self):
        autodiscover("tasks")

        self.assertIn("ledger.record", registry.actors())
        self.assertIn("words.count_words", registry.actors())


class ConfigTests(SimpleTestCase):
    def test_the_label_does_not_depend_on_the_project(self):
        config = apps.get_app_config("django_actors")

        self.assertEqual((config.name, config.label), ("django_actors", "django_actors"))

    def test_the_key_of_its_tables_does_not_depend_on_the_version_of_django(self):
        config: Any = apps.get_app_config("django_actors")

        self.assertEqual(config.default_auto_field, "django.db.models.BigAutoField")
        keys = {
            model._meta.pk.get_internal_type()
            for model in config.get_models()
            if model.__name__ in ("WaitingMessage", "QueuedMessage")
        }
        self.assertEqual(keys, {"BigAutoField"})


SCRIPT = """
import django
django.setup()
from django_actors.registry import registry
print(sorted(registry.actors()))
"""


class ProcessTests(SimpleTestCase):
    def test_every_process_that_sets_django_up_knows_the_actors(self):
        root = Path(django_actors.__file__).parent.parent
        path = f"{root}:{root / 'testproject'}"
        environment = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "testproject.settings"}

        process = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True
        )

        self.assertEqual(process.stderr, "")
        self.assertIn("'words.count_words'", process.stdout)


class StartTests(SimpleTestCase):
    def test_no_garbage_is_looked_for_while_runactors_imports_the_project(self):
        config = apps.get_app_config("django_actors")
        self.addCleanup(garbage.go_on)
        self.addCleanup(gc.unfreeze)

        for arguments, looks in ((["manage.py", "runactors"], False), (["manage.py"], True)):
            with self.subTest(arguments=arguments), mock.patch.object(sys, "argv", arguments):
                type(config)(config.name, django_actors)
                self.assertEqual(gc.isenabled(), looks)
                garbage.go_on()
