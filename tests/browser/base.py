"""
A real browser that an operator sits at, and everything it complains of.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import SkipTest, mock

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import override_settings, tag
from django.urls import reverse

from tests.admin.cases import OperatorMixin
from tests.engine import ActorsMixin

# Which browser; CI sets it up, and leaves none of these tests out.
BROWSER_VARIABLE = "ACTORS_TEST_CHROMIUM"

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 667}


def find_browser() -> str:
    """Return the path of Chromium; ``SkipTest`` if there is none, or nothing to drive it."""
    path = os.environ.get(BROWSER_VARIABLE) or shutil.which("chromium") or ""
    if not path:
        raise SkipTest("Chromium is not installed")
    try:
        import playwright  # noqa: F401
    except ImportError:
        raise SkipTest("playwright is not installed") from None
    return path


@tag("processes")
@override_settings(MIDDLEWARE=["tests.browser.policy.StrictPolicy", *settings.MIDDLEWARE])
class BrowserCase(OperatorMixin, ActorsMixin, StaticLiveServerTestCase):
    """Serves the test project, and opens its pages in Chromium."""

    browser: Any

    @classmethod
    def setUpClass(cls) -> None:
        path = find_browser()
        from playwright.sync_api import sync_playwright

        # Playwright runs a loop in this thread; the queries of a test do not mind.
        cls.enterClassContext(mock.patch.dict(os.environ, {"DJANGO_ALLOW_ASYNC_UNSAFE": "1"}))
        super().setUpClass()
        # In Python's development mode it tells of every slow step.
        logger = logging.getLogger("asyncio")
        cls.enterClassContext(mock.patch.object(logger, "disabled", True))
        driver = cls.enterClassContext(sync_playwright())
        # Without a sandbox: CI is root in a container.
        cls.browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)

    def setUp(self) -> None:
        super().setUp()
        self.complaints: list[str] = []
        self.user: Any = get_user_model().objects.create_superuser("ada", password="x")

    # ---- the browser -----------------------------------------------------------

    def open(self, path: str = "", *, user: Any = None, **options: Any) -> Any:
        """Open a page as a user who is logged in; *options* are those of a browser context."""
        context = self.browser.new_context(**{"viewport": DESKTOP, **options})
        self.addCleanup(context.close)
        self.client.force_login(user or self.user)
        cookie = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        name = settings.SESSION_COOKIE_NAME
        context.add_cookies([{"name": name, "value": cookie, "url": self.live_server_url}])
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", self._note_dialog)
        if path:
            self.go(page, path)
        return page

    def go(self, page: Any, path: str) -> None:
        """Open another page, which must be there."""
        response = page.goto(self.live_server_url + path)
        self.assertEqual(response.status, 200, path)
        self.assertEqual(response.headers["content-security-policy"], "default-src 'self'")

    def _note_console(self, message: Any) -> None:
        # The demo has no icon, and every browser asks for one.
        if message.location["url"].endswith("favicon.ico"):
            return
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _note_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @contextmanager
    def no_complaints(self, about: str) -> Iterator[None]:
        """Fail if the browser refuses or reports anything meanwhile."""
        self.complaints.clear()
        yield
        self.assertEqual(self.complaints, [], about)

    # ---- users and addresses ---------------------------------------------------

    def make_user(self, *codenames: str) -> Any:
        """Return a member of the staff with these permissions alone."""
        user = get_user_model().objects.create_user("bob", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        return user

    def list_path(self, model: str) -> str:
        return reverse(f"admin:django_actors_{model}_changelist")

    def row_path(self, row: Any, name: str = "change") -> str:
        return reverse(f"admin:django_actors_{row._meta.model_name}_{name}", args=[row.pk])
