"""The table of faults in the documentation names tests that exist, for every fault."""

from __future__ import annotations

import ast

from django.test import SimpleTestCase

from tests.projects import ROOT
from tests.test_docs import names_in, read_rows

PAGE = "explanation/reliability.md"
FAULTS = 45


class TableTests(SimpleTestCase):
    def test_every_fault_has_a_test_that_exists(self):
        rows = read_rows(PAGE, "#", "fault")

        self.assertEqual([row[0] for row in rows], [str(n) for n in range(1, FAULTS + 1)])
        for row in rows:
            names = names_in(row[3])
            self.assertTrue(names, row)
            for name in names:
                with self.subTest(name):
                    self.assertTrue(stands_in_its_class(name), f"{PAGE}: there is no {name}")


def stands_in_its_class(name: str) -> bool:
    # Read, not imported: what a test needs is not needed to know that it is there.
    module, kind, method = name.rsplit(".", 2)
    path = ROOT.joinpath("tests", *module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return any(
        isinstance(step, ast.FunctionDef) and step.name == method
        for each in tree.body
        if isinstance(each, ast.ClassDef) and each.name == kind
        for step in each.body
    )
