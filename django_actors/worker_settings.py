"""
The settings of worker processes that a test starts: the project's, on the test's databases.

``real_worker()`` says in the environment which those are.
"""

import json
import os
from importlib import import_module

_given = json.loads(os.environ["DJANGO_ACTORS_TEST"])
_project = import_module(_given["settings"])

globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})

DATABASES = {
    alias: {**configuration, "NAME": _given["databases"].get(alias, configuration.get("NAME"))}
    for alias, configuration in _project.DATABASES.items()
}
DJANGO_ACTORS = {**getattr(_project, "DJANGO_ACTORS", {}), **_given["actors"]}
