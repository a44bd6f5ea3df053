"""Arguments in full, and as code: for those who may see them."""

from __future__ import annotations

from django.test import TestCase

from django_actors import Message
from django_actors.admin import code
from django_actors.models import DeadLetter
from django_actors.test import sent

from .cases import AdminCase, Page, bury, bury_bytes, charge, greet, wait


class SensitiveArgumentsTests(AdminCase):
    def test_who_may_sees_them_and_the_log_knows(self):
        for row in (bury(charge.message(1, "41x11")), wait(charge.message(1, card="41x11"))):
            with self.subTest(row=row):
                shown = self.client.get(self.row_url(row))
                self.assertNotContains(shown, "41x11")
                self.assertIn(self.row_url(row, "arguments"), Page(shown).links)

                page = self.client.get(self.row_url(row, "arguments"))

                self.assertContains(page, "41x11")
                self.assertIn((str(row.pk), "Looked at sensitive arguments."), self.logged())

    def test_who_may_not_has_neither_the_link_nor_the_address(self):
        row = bury(charge.message(1, "41x11"))
        self.log_in_with(
            "view_deadletter", "requeue_deadletter", "edit_deadletter", "discard_deadletter"
        )

        for name in ("arguments", "copy_as_code"):
            with self.subTest(name=name):
                self.assertNotIn(
                    self.row_url(row, name), Page(self.client.get(self.row_url(row))).links
                )
                self.assertEqual(self.client.get(self.row_url(row, name)).status_code, 403)
        self.assertNotContains(self.client.get(self.list_url(DeadLetter)), "copy_as_code")

    def test_without_secrets_there_is_nothing_to_uncover(self):
        row = bury(greet.message("Ada"))

        links = Page(self.client.get(self.row_url(row))).links

        self.assertNotIn(self.row_url(row, "arguments"), links)


class CopyTests(AdminCase):
    def code_of(self, response):
        self.assertEqual(Page(response).refused, [])
        return str(response.context["code"])

    def test_the_list_and_the_page_of_a_row_give_code(self):
        rows = [bury(greet.message("Ada", times=2)), bury(greet.message("<script>"))]

        many = self.code_of(self.ask(rows, "copy_as_code"))
        self.assertEqual(
            self.logged(), [(str(row.pk), "Copied as code.") for row in reversed(rows)]
        )
        one = self.code_of(self.client.get(self.row_url(rows[0], "copy_as_code")))

        self.assertIn("from tests.admin.cases import greet", many)
        self.assertEqual(many.count("greet.send("), 2)
        self.assertIn("greet.send('Ada', times=2)", one)
        self.assertIn(self.row_url(rows[0], "copy_as_code"), self.links_of(rows[0]))

    def links_of(self, row):
        return Page(self.client.get(self.row_url(row))).links

    def test_bytes_that_are_no_message_are_left_out(self):
        rows = [bury(greet.message("Ada")), bury_bytes(b"junk")]

        asked = self.ask(rows, "copy_as_code")

        self.assertIn("1 message was left out", Page(asked).text)
        self.assertNotIn(self.row_url(rows[1], "copy_as_code"), self.links_of(rows[1]))

    def test_there_is_room_for_so_many(self):
        rows = [bury(greet.message(number)) for number in range(code.MAX_ROWS + 3)]

        written = self.code_of(self.ask(rows, "copy_as_code", across=True))

        self.assertEqual(written.count("greet.send("), code.MAX_ROWS)


class CodeTests(TestCase):
    """What is pasted sends the same message again."""

    def run_code(self, message):
        written = str(code.write_code([bury(message)]))
        exec(compile(written, "pasted", "exec"), {})
        (again,) = sent()
        return again

    def test_arguments_survive(self):
        message = greet.message("Ada'\"\\\n\u202e🎉", times=None)

        again = self.run_code(message)

        self.assertEqual((again.args, again.kwargs), (message.args, message.kwargs))

    def test_options_survive(self):
        message = greet.message_with_options(args=("Ada",), priority=5)

        again = self.run_code(message)

        self.assertEqual((again.args, again.options["priority"]), (("Ada",), 5))

    def test_names_that_are_no_python_survive(self):
        for name in ("a b", "class"):
            message = greet.message("Ada").copy(args=(), kwargs={name: 1})
            written = str(code.write_code([bury(message)]))
            self.assertIn(f"greet.send(**{{{name!r}: 1}})", written)

    def test_an_actor_that_nobody_can_import_is_named(self):
        again = self.run_code(Message("mail", "nobody.knows", (1,), {"x": 2}, {}))

        self.assertEqual((again.actor_name, again.queue_name), ("nobody.knows", "mail"))
        self.assertEqual((again.args, again.kwargs), ((1,), {"x": 2}))

    def test_what_the_engine_noted_is_not_copied(self):
        message = greet.message("Ada").copy(options={"retries": 3, "traceback": "x"})

        self.assertEqual(self.run_code(message).options, {})

    def test_a_large_one_is_left_out(self):
        written = code.write_code([bury(greet.message("x" * code.MAX_CODE))])

        self.assertEqual((written.left_out, written.statements), (1, []))
