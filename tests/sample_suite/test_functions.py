"""Plain functions: only pytest runs them."""

import pytest
from shop.models import Order
from shop.tasks import confirm, note

from django_actors import get_broker


@pytest.fixture(autouse=True)
def welcome():
    """Send before the test does, and before Django has a mailbox for tests."""
    note.send("welcome")
    assert type(get_broker()).__name__ == "StubBroker"


@pytest.mark.parametrize("word", ["first", "second"])
def test_a_function_starts_empty(actors, word):
    assert [message.args for message in actors.sent()] == [("welcome",)]

    note.send(word)

    actors.assert_sent(note, word)


@pytest.mark.django_db
def test_a_function_with_a_database_runs_actors(actors):
    assert len(actors.run()) == 1
    Order.objects.create(number=1)
    confirm.send(1)

    assert [str(result.outcome) for result in actors.run()] == ["done", "done"]
    assert Order.objects.get().mails == 2


@pytest.mark.django_db(transaction=True)
def test_a_function_with_transactions_starts_empty(actors):
    assert len(actors.sent()) == 1

    note.send("left")


def test_a_failing_assertion_shows_what_was_sent(actors):
    note.send("Ada")

    with pytest.raises(AssertionError, match=r"actors\.assert_sent\(note, 'Ada'\)"):
        actors.assert_sent(note, "Bob")
