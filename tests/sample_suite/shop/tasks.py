from datetime import timedelta

from django.db.models import F

from django_actors import actor

from .models import Order


@actor
def note(word):
    """Do nothing: recording is what counts."""


@actor
def confirm(number):
    Order.objects.filter(number=number).update(mails=F("mails") + 1)
    ship.send(number)


@actor(queue_name="shipping")
def ship(number):
    Order.objects.filter(number=number).update(mails=F("mails") + 1)


@actor(max_retries=20, min_backoff=timedelta(minutes=1), max_backoff=timedelta(days=7))
def flaky(number):
    Order.objects.create(number=number)
    raise ConnectionError("The shop is closed.")


@actor
async def count():
    return await Order.objects.acount()
