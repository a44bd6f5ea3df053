"""The pages of the admin are usable with a theme that replaces the admin's templates."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import unittest
from pathlib import Path

from django.test import SimpleTestCase, tag

ROOT = Path(__file__).resolve().parent.parent.parent


@tag("processes")
@unittest.skipUnless(importlib.util.find_spec("unfold"), "django-unfold is not installed")
class UnfoldTests(SimpleTestCase):
    def test_every_page_answers_and_does_its_work(self):
        # A process of its own: the theme takes the place of the admin's site and templates.
        done = subprocess.run(
            [sys.executable, "-m", "django", "test", "tests.admin.themed"],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": "sqlite://:memory:",
                "DJANGO_SETTINGS_MODULE": "tests.admin.unfold_settings",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")]),
                # The theme's own warnings are its own business.
                "PYTHONWARNINGS": "default",
            },
            capture_output=True,
            text=True,
        )

        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 5 tests", done.stderr)
