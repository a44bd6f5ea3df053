"""Whatever bytes come: a message, or a dead letter that keeps them and can be looked at."""

from __future__ import annotations

import json
from typing import Any

from django.test import SimpleTestCase
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_actors.brokers.stub import StubBroker
from django_actors.delivery import Delivery, Reason
from django_actors.executor import Executor
from django_actors.models import DeadLetter
from django_actors.rows import build_delivery_row
from tests.admin.cases import AdminCase, Page, charge, greet
from tests.engine import make_message, silence

from .fuzz_decoder import CORPUS, check_body
from .sizes import SIZE

# A message in which one thing is another.
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = json.loads(make_message("admin_tests.greet", "Ada").encode())
nearly = st.tuples(st.sampled_from([*FIELDS, "other"]), values).map(
    lambda change: json.dumps({**FIELDS, change[0]: change[1]}).encode()
)


@st.composite
def damaged(draw: Any) -> bytes:
    """Return a message of which some bytes are others, or missing."""
    body = bytearray(make_message("admin_tests.greet", draw(values_of_args)).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(body)


values_of_args = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
bodies = st.binary(max_size=64) | nearly | damaged()

sized = settings(
    max_examples=SIZE.examples * 10,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class DecoderTests(SimpleTestCase):
    @sized
    @given(bodies)
    def test_a_body_is_a_message_or_a_dead_letter(self, body):
        check_body(body)

    def test_what_was_found_once_stays_found(self):
        paths = sorted(CORPUS.iterdir())
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(path.name):
                check_body(path.read_bytes())


class AdminTests(AdminCase):
    def test_every_page_about_it_can_be_seen(self):
        @settings(sized, max_examples=SIZE.examples * 2)
        @given(bodies)
        @example(make_message(greet.actor_name, "x", {"y": "<b>"}, retries="many", eta=-1).encode())
        @example(make_message(charge.actor_name).encode())
        def check(body: bytes) -> None:
            self.bury(body)
            self.look_at_pages(DeadLetter.objects.get())
            DeadLetter.objects.all().delete()

        check()

    def bury(self, body: bytes) -> None:
        delivery = Delivery(body, queue_name="default")
        with silence():
            Executor(StubBroker()).prepare(delivery)
        if not delivery.failed:
            delivery.exception = ValueError(body)
            delivery.fail(Reason.REJECTED)
        build_delivery_row(delivery).save()

    def look_at_pages(self, letter: DeadLetter) -> None:
        for url in (self.list_url(DeadLetter), self.row_url(letter)):
            response = self.client.get(url)

            self.assertEqual(response.status_code, 200)
            self.assertEqual(Page(response).refused, [])
