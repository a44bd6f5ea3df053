"""The wheel holds the package, whole, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import unittest
from email import message_from_bytes
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import ClassVar
from zipfile import ZipFile

from django.test import SimpleTestCase, tag

import django_actors

from . import test_docs
from .projects import clean_environment

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_actors"
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def setuptools_version() -> int:
    try:
        return int(metadata.version("setuptools").split(".")[0])
    except metadata.PackageNotFoundError:
        return 0


needs_setuptools = unittest.skipIf(
    setuptools_version() < 77, "needs setuptools 77, which is in the extra [test]"
)


@needs_setuptools
class WheelTests(SimpleTestCase):
    names: ClassVar[set[str]]
    header: ClassVar[Message]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix="django_actors_wheel_")
        cls.addClassCleanup(directory.cleanup)
        with ZipFile(build_wheel(Path(directory.name))) as wheel:
            cls.names = set(wheel.namelist())
            (path,) = (name for name in cls.names if name.endswith(".dist-info/METADATA"))
            cls.header = message_from_bytes(wheel.read(path))

    def test_every_file_of_the_package_is_in_the_wheel(self):
        files = {
            path.relative_to(ROOT).as_posix()
            for path in PACKAGE.rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }

        self.assertEqual({n for n in self.names if n.startswith("django_actors/")}, files)

    def test_type_checkers_are_told_that_the_package_is_typed(self):
        self.assertIn("django_actors/py.typed", self.names)

    def test_nothing_but_the_package_is_in_the_wheel(self):
        top_level = {name.split("/")[0] for name in self.names}

        self.assertEqual(
            top_level, {"django_actors", f"django_actors-{django_actors.__version__}.dist-info"}
        )

    def test_the_version_is_the_one_of_the_package(self):
        self.assertEqual(self.header["Version"], django_actors.__version__)

    def test_nothing_more_is_required_than_the_brokers_and_the_settings_need(self):
        requirements = self.header.get_all("Requires-Dist", [])

        required = {r.split(">")[0] for r in requirements if "extra ==" not in r}

        self.assertEqual(required, {"django", "django-environ", "pika", "redis"})


@tag("processes")
@needs_setuptools
class InstalledTests(test_docs.TutorialTests):
    """Follows the tutorial with the wheel and what it requires, and nothing of this repository."""

    packages = ""
    place: ClassVar[Path]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = tempfile.TemporaryDirectory(prefix="django_actors_installed_")
        cls.addClassCleanup(directory.cleanup)
        cls.place = Path(directory.name).resolve()
        wheel = build_wheel(cls.place)
        cls.python = str(cls.place / "venv" / "bin" / "python")
        for command in (
            [sys.executable, "-m", "venv", str(cls.place / "venv")],
            [cls.python, "-m", "pip", "install", "--quiet", str(wheel)],
        ):
            done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
            if done.returncode:
                raise AssertionError(f"{command} failed.\n{done.stderr}")

    def test_the_package_is_the_installed_one(self):
        code = "import django_actors; print(django_actors.__file__)"

        file = Path(self.run_python(["-c", code]).strip()).resolve()

        self.assertIn(self.place, file.parents)


def build_wheel(directory: Path) -> Path:
    """Build the wheel from a copy, so that the working tree stays clean."""
    source = directory / "source"
    shutil.copytree(PACKAGE, source / "django_actors", ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD, str(directory)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return next(directory.glob("*.whl"))
