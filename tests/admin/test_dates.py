"""The links to days above the list of dead letters."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import F
from django.test import override_settings
from django.utils import timezone

from django_actors.models import DeadLetter, WaitingMessage

from .cases import AdminCase, Page, bury, greet


class DateCase(AdminCase):
    def bury_on(self, *days_ago):
        for days in days_ago:
            row = bury(greet.message(days))
            moment = timezone.now() - timedelta(days=days)
            WaitingMessage.objects.filter(pk=row.pk).update(stored_at=moment)

    def day_links(self, query=""):
        page = Page(self.client.get(self.list_url(DeadLetter) + query))
        return [link for link in page.links if "stored_at__" in link]


class DateTests(DateCase):
    def test_each_day_has_a_link_that_finds_its_rows(self):
        self.bury_on(0, 0, 2)

        links = self.day_links()

        self.assertEqual(len(links), 3)
        found = [
            len(self.client.get(self.list_url(DeadLetter) + link).context["cl"].result_list)
            for link in links
        ]
        self.assertEqual(found, [1, 0, 2])

    def test_a_chosen_day_leads_back_to_all(self):
        self.bury_on(0, 2)

        page = Page(self.client.get(self.list_url(DeadLetter) + self.day_links()[0]))

        self.assertIn("All dates", page.text)

    def test_a_long_time_is_cut_into_months_first(self):
        self.bury_on(0, 100)

        months = self.day_links()

        self.assertTrue(all("day" not in link for link in months))
        self.assertIn(len(months), (4, 5))
        days = self.day_links(months[0])
        self.assertTrue(any("stored_at__day" in link for link in days))

    def test_a_clock_that_went_wrong_makes_no_endless_list(self):
        self.bury_on(0, 1)
        WaitingMessage.objects.filter(pk=DeadLetter.objects.earliest("pk").pk).update(
            stored_at=F("stored_at") - timedelta(days=20_000)
        )

        self.assertLess(len(self.day_links()), 70)

    def test_without_rows_there_is_none(self):
        self.assertEqual(self.day_links(), [])

    @override_settings(TIME_ZONE="Pacific/Kiritimati")
    def test_days_are_those_of_the_reader(self):
        self.bury_on(0)

        (link,) = self.day_links()

        listed = self.client.get(self.list_url(DeadLetter) + link)
        self.assertEqual(len(listed.context["cl"].result_list), 1)

    def test_nonsense_in_the_address_breaks_nothing(self):
        self.bury_on(0)

        for query in ("?stored_at__year=x", "?stored_at__year=2026&stored_at__month=77"):
            response = self.client.get(self.list_url(DeadLetter) + query, follow=True)
            self.assertIn(response.status_code, (200, 400))


class AgeTests(DateCase):
    def test_age_filters_by_when_it_died(self):
        self.bury_on(0, 0, 3)

        for age, count in (("hour", 2), ("day", 2), ("older", 1), ("nonsense", 3)):
            with self.subTest(age=age):
                listed = self.client.get(f"{self.list_url(DeadLetter)}?age={age}")
                self.assertEqual(len(listed.context["cl"].result_list), count)
