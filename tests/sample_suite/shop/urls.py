from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from .models import Order
from .tasks import confirm


def order(request, number):
    with transaction.atomic():
        Order.objects.create(number=number)
        confirm.send(number)
    return HttpResponse("ordered")


urlpatterns = [path("order/<int:number>/", order)]
