"""Whatever a message holds: its pages run nothing, fit a phone, and can be read in the dark."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.urls import reverse

from django_actors import failures
from django_actors.admin import bulk
from django_actors.models import ErrorGroup, WaitingMessage
from tests.admin.cases import bury, bury_bytes, charge, greet, retry, wait
from tests.browser.base import PHONE, BrowserCase

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>"
    "{{ 7 }}</textarea></pre></title>\u202eltr\u2066\u200b🎉 👩‍👩‍👧 \0NUL\x1b[31m",
    "x" * 1_000_000,
)

# What may stand on a page and be read: its colour, and the first background behind it.
CONTRAST = """
elements => elements.map(element => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    let behind = element, back;
    do {
        back = rgb(getComputedStyle(behind).backgroundColor);
        behind = behind.parentElement;
    } while (behind && back.length === 4 && back[3] === 0);
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(back)];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.className];
})
"""


class PageCase(BrowserCase):
    def write(self, text: str) -> list[str]:
        """Write rows that hold *text* wherever they can, and return the paths of their pages."""
        try:
            raise ValueError(text)
        except ValueError as error:
            dead = bury(greet.message(text, times=text), error)
        secret = bury(charge.message(1, text), KeyError(text))
        failures.count_failures([dead, secret], "default")
        junk = bury_bytes(text.encode())
        waiting = retry(greet.message(text), 1)
        wait(greet.message(text))
        WaitingMessage.objects.filter(pk=waiting.pk).update(error=text[:1000].replace("\0", ""))
        group = ErrorGroup.objects.latest("last_ms")
        return [
            *map(self.list_path, ("deadletter", "scheduledmessage", "errorgroup")),
            *(self.row_path(dead, name) for name in ("change", "requeue", "edit_and_requeue")),
            self.row_path(dead, "copy_as_code"),
            self.row_path(secret, "arguments"),
            self.row_path(junk),
            *(self.row_path(waiting, name) for name in ("change", "reschedule")),
            reverse("admin:django_actors_errorgroup_change", args=[group.pk]),
            reverse("admin:django_actors_errorgroup_requeue", args=[group.pk]),
            reverse("admin:django_actors_deadletter_message", args=[dead.message_id]),
        ]


class HostileTests(PageCase):
    def test_nothing_of_a_message_runs_and_no_page_breaks_under_a_strict_policy(self):
        for text in HOSTILE:
            page = self.open()
            for path in self.write(text):
                with self.subTest(text=text[:12], path=path), self.no_complaints(path):
                    self.go(page, path)
                    self.assertIsNone(page.evaluate("window.hacked ?? null"))
                    self.assertTrue(page.locator("#content").is_visible())
            page.context.close()
            WaitingMessage.objects.all().delete()

    def test_the_browser_would_complain_of_an_inline_script(self):
        page = self.open(self.list_path("deadletter"))

        page.evaluate(
            "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
            "document.body.append(s)"
        )

        self.assertIn("Content Security Policy", " ".join(self.complaints))
        self.assertIsNone(page.evaluate("window.hacked ?? null"))


class SizeTests(PageCase):
    def test_no_page_is_wider_than_a_phone(self):
        paths = self.write("a_rather_long_word_" * 40)
        page = self.open(viewport=PHONE)

        for path in paths:
            with self.subTest(path=path), self.no_complaints(path):
                self.go(page, path)
                width = page.evaluate("document.documentElement.scrollWidth")
                self.assertLessEqual(width, PHONE["width"])


class ColourTests(PageCase):
    def test_everything_can_be_read_in_the_dark_and_in_the_light(self):
        paths = self.write("Ada")
        for scheme, some in ("dark", paths), ("light", paths[:4]):
            page = self.open(color_scheme=scheme)
            for path in some:
                with self.subTest(scheme=scheme, path=path):
                    self.go(page, path)
                    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
                    self.assertEqual(back == "rgb(255, 255, 255)", scheme == "light")
                    self.assert_legible(page)

    def assert_legible(self, page: Any) -> None:
        places = page.locator("[class*=actors-] td, [class*=actors-] th, .actors-block, .readonly")
        found = places.evaluate_all(CONTRAST)
        self.assertEqual([each for each in found if each[0] < 4.5], [])


class WithoutScriptTests(PageCase):
    def test_all_that_match_are_requeued_page_by_page(self):
        for number in range(6):
            bury(greet.message(number), KeyError("x"))
        page = self.open(self.list_path("deadletter"), java_script_enabled=False)

        page.locator("[name=action]").select_option("requeue")
        for box in page.locator("[name=_selected_action]").all():
            box.check()
        page.locator("#changelist-form button[type=submit]").first.click()
        self.assertIn("6 messages", page.locator(".actors-table caption").text_content())
        with mock.patch.multiple(bulk, BATCH_ROWS=2, WORK_S=0.0):
            page.locator("input[type=submit].default").click()
        self.assertIn("2 of 6 messages so far", page.locator("[role=status]").inner_text())
        page.get_by_role("button", name="Continue").click()

        self.assertIn("6 messages were requeued.", page.locator(".messagelist").inner_text())
        self.assertFalse(WaitingMessage.objects.filter(kind="dead").exists())

    def test_what_became_of_a_message_is_a_link_away(self):
        row = bury(greet.message("Ada"), KeyError("x"))
        page = self.open(self.row_path(row, "requeue_and_see"), java_script_enabled=False)

        page.locator("input[type=submit].default").click()
        self.assertIn("It is due", page.locator(".actors-fate").inner_text())
        WaitingMessage.objects.all().delete()
        page.get_by_text("Look again").click()

        self.assertIn("It is with the broker", page.locator(".actors-fate").inner_text())
