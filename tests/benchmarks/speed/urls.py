"""The pages of the contenders that live in a Django project: those that `startproject` makes."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
