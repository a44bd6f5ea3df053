from django.apps import AppConfig


class WordsConfig(AppConfig):
    name = "words"
    default_auto_field = "django.db.models.BigAutoField"
