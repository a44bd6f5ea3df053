from django.apps import AppConfig

from django_actors import Middleware, get_broker


class Marker(Middleware):
    """What the project adds by hand has to be there in tests, too."""


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        # Before any test runner has said that these are tests.
        get_broker().add_middleware(Marker())
