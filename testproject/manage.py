#!/usr/bin/env python
"""Run a management command of the test project; begin with ``manage.py demo``."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:  # Ctrl-C is no error
        sys.exit(130)


if __name__ == "__main__":
    main()
