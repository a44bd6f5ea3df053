"""``run_actors()`` and the database: the test's rows, its transaction, its savepoints."""

from __future__ import annotations

from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings

from django_actors.test import arun_actors, run_actors, sent
from tests.engine import in_thread
from words.models import Page

from .base import HelpersCase, outcomes


class DatabaseTests(HelpersCase, TestCase):
    def test_actors_see_what_the_test_wrote_and_the_test_sees_what_they_wrote(self):
        def rename(pk: int) -> None:
            Page.objects.filter(pk=pk).update(url="new")

        page = Page.objects.create(url="old")
        self.declare(rename).send(page.pk)

        run_actors()

        page.refresh_from_db()
        self.assertEqual(page.url, "new")

    def test_what_an_actor_wrote_before_it_raised_stays(self):
        def write_and_fail() -> None:
            Page.objects.create(url="written")
            raise ValueError

        self.declare(write_and_fail).send()

        self.assertRaises(ValueError, run_actors)

        self.assertTrue(Page.objects.filter(url="written").exists())

    def test_neither_recording_nor_running_asks_a_query(self):
        with self.assertNumQueries(0):
            self.greet.send("Ada")
            self.greet.send_with_options(args=("Bob",), delay=1_000)
            sent()
            run_actors(until_idle=True)

    def test_the_queries_of_actors_can_be_counted(self):
        self.declare(lambda: Page.objects.count(), actor_name="count").send()

        with self.assertNumQueries(1):
            run_actors()

    def test_another_thread_may_not_run_what_is_in_the_test_s_transaction(self):
        self.greet.send("Ada")

        with self.assertRaisesMessage(RuntimeError, "greet('Ada') was sent in a transaction of"):
            in_thread(run_actors)

        self.assertEqual(len(run_actors()), 1)

    async def test_a_coroutine_awaits(self):
        await self.greet.asend("Ada")

        with self.assertRaisesMessage(SynchronousOnlyOperation, "await arun_actors()"):
            run_actors()

        self.assertEqual(outcomes(await arun_actors()), ["done"])

    def test_an_actor_may_be_a_coroutine_function(self):
        async def count() -> int:
            return await Page.objects.acount()

        Page.objects.create(url="1")
        self.declare(count).send()

        self.assertEqual(run_actors()[0].value, 1)

    def test_a_send_in_an_open_block_runs_when_the_test_says_so(self):
        with transaction.atomic():
            self.greet.send("Ada")

            self.assertEqual(len(run_actors()), 1)


class CommittedTests(HelpersCase, TransactionTestCase):
    available_apps = ["django_actors", "words"]

    def test_the_queries_of_actors_can_be_counted(self):
        self.declare(lambda: Page.objects.count(), actor_name="count").send()

        with self.assertNumQueries(1):
            run_actors()

    def test_other_threads_see_a_send_after_the_commit(self):
        with transaction.atomic():
            self.greet.send("Ada")
            self.assertEqual(in_thread(run_actors), [])

        self.assertEqual(len(in_thread(run_actors)), 1)

    def test_a_rollback_takes_the_send_back(self):
        with self.assertRaises(KeyError), transaction.atomic():
            self.greet.send("Ada")
            self.greet.send_with_options(args=("Bob",), delay=1)
            raise KeyError

        self.assertEqual(sent(), [])
        self.assertEqual(run_actors(until_idle=True), [])

    @override_settings(DJANGO_ACTORS={"ON_TRANSACTION": "ignore"})
    def test_a_rollback_takes_nothing_back_where_transactions_are_ignored(self):
        with self.assertRaises(KeyError), transaction.atomic():
            self.greet.send("Ada")
            raise KeyError

        self.assertEqual(len(run_actors()), 1)


class CommitCallbackTests(HelpersCase, TestCase):
    def test_callbacks_that_are_run_and_run_actors_agree(self):
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: self.greet.send("later"))
            self.greet.send("now")

        self.assertEqual({m.args[0] for m in sent()}, {"now", "later"})
        self.assertEqual(len(run_actors()), 2)
        self.assertEqual(run_actors(), [])

    def test_callbacks_that_run_after_run_actors_send_nothing_again(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.greet.send("now")
            run_actors()

        self.assertEqual(run_actors(), [])
        self.assertEqual(self.calls, ["now"])

    def test_a_send_of_a_rolled_back_savepoint_is_gone_whatever_was_run(self):
        with self.assertRaises(KeyError), transaction.atomic():
            with self.captureOnCommitCallbacks(execute=True):
                self.greet.send("gone")
            raise KeyError

        self.assertEqual(sent(), [])
        self.assertEqual(run_actors(), [])

    def test_a_failed_send_leaves_nothing(self):
        with transaction.atomic():
            self.assertRaises(TypeError, self.greet.send, object())

        self.assertEqual(sent(), [])
