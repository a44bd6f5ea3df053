"""When the garbage collector rests."""

from __future__ import annotations

import gc

from django.test import SimpleTestCase

from django_actors import garbage


class RestTests(SimpleTestCase):
    def setUp(self):
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def test_it_goes_on_without_a_look_at_what_came_meanwhile(self):
        gc.enable()

        garbage.rest()
        self.assertFalse(gc.isenabled())
        garbage.go_on()

        self.assertTrue(gc.isenabled())
        self.assertGreater(gc.get_freeze_count(), 0)

    def test_a_project_that_has_switched_it_off_keeps_it_off(self):
        gc.disable()

        garbage.rest()
        garbage.go_on()

        self.assertFalse(gc.isenabled())

    def test_it_goes_on_where_it_did_not_rest(self):
        garbage.go_on()

        self.assertTrue(gc.isenabled())
