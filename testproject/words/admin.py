from django.contrib import admin

from .models import Page

admin.site.register(Page, list_display=["url", "words", "longest_word", "counted_at"])
