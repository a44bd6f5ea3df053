"""How Sphinx builds these pages: ``sphinx-build -W docs docs/_build``."""

project = "django_actors"
author = "django_actors contributors"

extensions = ["myst_parser"]
exclude_patterns = ["_build"]

# Links between pages may name a heading.
myst_heading_anchors = 3

html_theme = "furo"
html_title = "django_actors"
