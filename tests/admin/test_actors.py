"""The pages of actors, and the form that sends to them."""

from __future__ import annotations

from typing import Any
from unittest import mock

from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.urls import reverse

from django_actors.admin.sending import EMPTY, SendForm, read_parameters
from django_actors.errors import BrokerUnavailable
from django_actors.models import QueuedMessage, ScheduledMessage
from tests.admin.cases import AdminCase, Page
from tests.control.cases import ControlCase, greet

GREET = "admin_tests.greet"


class ActorsCase(AdminCase, ControlCase):
    def setUp(self) -> None:
        ControlCase.setUp(self)
        AdminCase.setUp(self)

    def url(self, name: str = "changelist", actor: str = "") -> str:
        args = [quote(actor)] if actor else []
        return reverse(f"admin:django_actors_actorsummary_{name}", args=args)

    def look(self, name: str = "changelist", actor: str = "") -> Any:
        return self.client.get(self.url(name, actor))

    def send(self, actor: str = GREET, **answers: Any) -> Any:  # type: ignore[override]
        return self.client.post(self.url("send", actor), answers, follow=True)

    def sent(self) -> Any:
        return QueuedMessage.objects.values_list("body", flat=True)


class ListTests(ActorsCase):
    def test_it_has_an_entry_in_the_sidebar(self):
        self.assertIn(self.url(), Page(self.client.get(reverse("admin:index"))).links)

    def test_every_actor_is_shown_with_its_day(self):
        self.count(succeeded=1_234, failed=5)

        text = Page(self.look()).text

        self.assertIn("admin_tests.greet mail 0 1234 5 0 10", text)
        self.assertIn("admin_tests.charge default", text)

    def test_more_counts_take_no_more_queries(self):
        self.look()
        for _ in range(2):
            with self.assertNumQueries(3):
                self.look()
            for number in range(10):
                self.count(succeeded=1, actor=f"actor_{number}")

    def test_without_the_permission_nothing_is_shown(self):
        self.log_in_with("send_actorsummary")

        for name, actor in (("changelist", ""), ("actor", GREET), ("send", GREET)):
            self.assertEqual(self.look(name, actor).status_code, 403)


class ActorPageTests(ActorsCase):
    def test_it_shows_what_is_declared(self):
        def nightly(path: str, *, depth: int = 3) -> None:
            """
            Tidy up.

            <b>All</b> of it.
            """

        self.declare(nightly, actor_name="nightly", queue_name="slow", max_retries=2)

        response = self.look("actor", "nightly")

        self.assertContains(response, "Tidy up.")
        self.assertContains(response, "&lt;b&gt;All&lt;/b&gt; of it.")
        self.assertIn("max_retries 2", Page(response).text)
        self.assertIn("It reads queue slow", Page(response).text)

    def test_its_link_leads_from_the_list(self):
        self.assertIn(self.url("actor", GREET), Page(self.look()).links)

    def test_an_actor_that_is_not_there_is_not_found(self):
        for name in ("actor", "send"):
            self.assertEqual(self.look(name, "gone").status_code, 404)

    def test_a_strict_policy_refuses_nothing(self):
        for name, actor in (("changelist", ""), ("actor", GREET), ("send", GREET)):
            self.assertEqual(Page(self.look(name, actor)).refused, [])

    def test_the_form_is_offered_to_who_may_send(self):
        self.assertIn(self.url("send", GREET), Page(self.look("actor", GREET)).links)
        self.log_in_with("view_actorsummary")

        self.assertNotIn(self.url("send", GREET), Page(self.look("actor", GREET)).links)
        self.assertEqual(self.look("send", GREET).status_code, 403)
        self.assertEqual(self.send(argument_name='"Ada"').status_code, 403)
        self.assertEqual(list(self.sent()), [])


class SendTests(ActorsCase):
    def test_a_message_is_sent(self):
        response = self.send(argument_name='"Ada"', argument_times="2")

        [body] = self.sent()
        self.assertIn(b'"args":["Ada"],"kwargs":{"times":2}', bytes(body))
        self.assertEqual(response.redirect_chain[-1][0], self.url("actor", GREET))
        self.assertIn("was sent.", self.told(response)[0])

    def test_its_link_tells_what_became_of_it(self):
        response = self.send(argument_name='"Ada"')
        links = [link for link in Page(response).links if "/message/" in link]

        self.assertEqual(self.client.get(links[0]).status_code, 200)

    def test_who_sent_what_is_in_the_log_without_secrets(self):
        self.send("admin_tests.charge", argument_amount="5", argument_card='"4711"')

        entry = LogEntry.objects.get()
        self.assertIn("admin_tests.charge(5, ***)", entry.change_message)
        self.assertNotIn("4711", entry.change_message)
        self.assertEqual((entry.user, entry.object_repr), (self.user, "admin_tests.charge"))

    def test_it_may_wait(self):
        self.send(argument_name='"Ada"', delay_s="3600")

        self.assertEqual(ScheduledMessage.objects.count(), 1)

    def test_what_does_not_fit_is_refused_where_it_stands(self):
        for answers, complaint in (
            ({}, "This field is required."),
            ({"argument_name": "Ada"}, "This is not JSON"),
            ({"argument_name": "[" * 100_000}, "This is not JSON"),
            ({"argument_name": "1", "delay_s": "-1"}, "greater than or equal to 0"),
            ({"argument_name": '"' + "x" * 2_000_000 + '"'}, "MAX_MESSAGE_SIZE"),
        ):
            with self.subTest(complaint):
                response = self.send(**answers)

                self.assertContains(response, complaint)
                self.assertEqual(list(self.sent()), [])
                self.assertEqual(LogEntry.objects.count(), 0)

    def test_a_field_tells_the_type_and_the_default(self):
        def call(a: int, b: str = "<b>") -> None: ...

        self.declare(call, actor_name="call")

        response = self.look("send", "call")

        self.assertContains(response, "Type: int.")
        self.assertContains(response, "Default: &#x27;&lt;b&gt;&#x27;.")

    def test_a_broker_that_is_down_is_told_of_and_nothing_is_logged(self):
        with mock.patch.object(self.broker, "enqueue", side_effect=BrokerUnavailable("away")):
            response = self.send(argument_name='"Ada"')

        self.assertEqual(response.status_code, 200)
        self.assertEqual(self.told(response), ["The message was not sent: away"])
        self.assertContains(response, "Ada")
        self.assertEqual(LogEntry.objects.count(), 0)


class FormTests(ControlCase):
    def bind(self, function: Any, **answers: str) -> SendForm:
        actor = self.declare(function, actor_name=function.__name__)
        form = SendForm({f"argument_{name}": text for name, text in answers.items()}, actor=actor)
        form.is_valid()
        return form

    def bound(self, function: Any, **answers: str) -> Any:
        form = self.bind(function, **answers)
        self.assertEqual(form.errors, {})
        return form.cleaned_data["args"], form.cleaned_data["kwargs"]

    def test_every_kind_of_parameter_has_its_field(self):
        def call(a, /, b, *c, d, e=5, **f): ...

        answers = {"a": "1", "b": "2", "c": "[3, 4]", "d": "null", "f": '{"g": 6}'}

        self.assertEqual(self.bound(call, **answers), ([1, 2, 3, 4], {"d": None, "g": 6}))

    def test_what_comes_after_a_default_is_given_by_its_name(self):
        def call(a=1, b=2): ...

        self.assertEqual(self.bound(call, b="3"), ([], {"b": 3}))

    def test_what_has_no_name_needs_all_before_it(self):
        def call(a=1, *b): ...

        self.assertIn("if a is given", str(self.bind(call, b="[3]").errors))

    def test_further_arguments_are_a_list_and_an_object(self):
        def call(*a, **b): ...

        errors = str(self.bind(call, a="{}", b="[]").errors)

        self.assertIn("A JSON list", errors)
        self.assertIn("A JSON object", errors)

    def test_an_actor_whose_parameters_nobody_knows_takes_any(self):
        with mock.patch("inspect.signature", side_effect=ValueError):
            names = [each.name for each in read_parameters(greet)]

        self.assertEqual(names, ["args", "kwargs"])

    def test_an_empty_field_is_no_value(self):
        def call(a=1): ...

        self.assertIs(self.bind(call).cleaned_data["argument_a"], EMPTY)
        self.assertEqual(self.bound(call, a="null"), ([None], {}))
