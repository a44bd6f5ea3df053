"""``manage.py`` of the contenders that live in a Django project."""

import os
import sys

if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.benchmarks.speed.settings"
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
