"""The life of one delivery, step by step, without threads and without a transport."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from django.db import OperationalError

from django_actors import executor as module
from django_actors.delivery import Delivery, Fate, Reason
from django_actors.errors import (
    ActorNotFound,
    DecodeError,
    Interrupt,
    MiddlewareError,
    Retry,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
)
from django_actors.executor import MISSING_ACTOR_DELAY_MS, Abandoned, Executor
from django_actors.middleware import Middleware, Retries
from django_actors.models import Kind

from .engine import deliver, make_message
from .support import START_MS, Failing, StubCase, actors_settings

CARD = "4111-1111-1111-1111"
CODE = "s3cr3t"


def arrive(message: Any, **options: Any) -> Delivery:
    """Return a delivery as a consumer makes it: bytes, not decoded."""
    delivery = Delivery(message.encode(), queue_name=message.queue_name)
    for name, value in options.items():
        setattr(delivery, name, value)
    return delivery


class ExecutorCase(StubCase):
    def run_message(self, message: Any, **options: Any) -> Delivery:
        delivery = arrive(message, **options)
        Executor(self.broker).run(delivery)
        return delivery

    def work(self, function: Any, *args: Any, **options: Any) -> Delivery:
        """Run a message for an actor that is *function*."""
        return self.run_message(self.replace(function, "work", **options).message(*args))


class RunTests(ExecutorCase):
    def test_the_actor_gets_the_arguments_and_its_value_is_the_result(self):
        declared = self.declare(lambda *args, **kwargs: [args, kwargs], actor_name="work")

        delivery = self.run_message(declared.message(1, [2, {"a": None}], x="é"))

        self.assertEqual(delivery.result, [(1, [2, {"a": None}]), {"x": "é"}])
        self.assertEqual((delivery.fate, delivery.exception), (Fate.DONE, None))
        self.assertIs(delivery.actor, declared)

    def test_a_message_needs_no_actor_object_where_it_was_sent(self):
        self.declare(lambda x: x, actor_name="work")

        delivery = self.run_message(make_message("work", 5, queue="elsewhere"))

        self.assertEqual(delivery.result, 5)

    def test_a_failure_is_kept_with_its_exception(self):
        delivery = self.work(lambda: 1 / 0)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.RETRY, Reason.RETRY))
        self.assertIsInstance(delivery.exception, ZeroDivisionError)

    def test_arguments_that_do_not_fit_are_a_failure_like_any_other(self):
        self.declare(lambda x: x, actor_name="work")

        delivery = self.run_message(make_message("work", 1, 2, 3))

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertIsInstance(delivery.exception, TypeError)

    def test_no_exception_of_an_actor_comes_through(self):
        class Odd(BaseException):
            def __str__(self):
                raise RuntimeError("no text")

            __repr__ = __str__

        for error in (
            ValueError("no"),
            SystemExit(1),
            KeyboardInterrupt(),
            GeneratorExit(),
            asyncio.CancelledError(),
            StopIteration(),
            RecursionError("deep"),
            ExceptionGroup("many", [ValueError("1"), TypeError("2")]),
            BaseExceptionGroup("many", [SystemExit(1)]),
            TimeLimitExceeded(),
            SkipMessage("not here"),
            MiddlewareError("not here"),
            Odd(),
        ):
            with self.subTest(error=type(error)):
                delivery = self.work(Failing(error).as_function())

                self.assertEqual(delivery.fate, Fate.RETRY)
                self.assertIs(delivery.exception, error)

    def test_a_failure_without_end_in_the_actor_is_one_too(self):
        def recurse():
            return recurse()

        self.assertIsInstance(self.work(recurse).exception, RecursionError)

    def test_a_delivery_that_is_decided_is_not_run_again(self):
        calls: list[Any] = []
        delivery = arrive(self.declare(calls.append, actor_name="work").message(1))
        Executor(self.broker).run(delivery)

        Executor(self.broker).run(delivery)

        self.assertEqual(calls, [1])


class DecodeTests(ExecutorCase):
    def test_bytes_that_are_no_message_become_a_dead_letter_that_keeps_them(self):
        for body in (b"", b"\xff\0", b"null", b"[]", b"[" * 100_000, b'{"args":NaN}'):
            with self.subTest(body=body[:10]):
                delivery = Delivery(body, queue_name="mail")

                Executor(self.broker).run(delivery)

                self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.UNDECODABLE))
                self.assertIsInstance(delivery.exception, DecodeError)
                self.assertEqual(delivery.body, body)
                self.assertIn(f"Buried {len(body)} bytes from queue 'mail'", self.log.text())

    def test_they_stop_nobody(self):
        self.broker.publish([Delivery(b"?", queue_name="default").envelope()])
        sent = self.declare(lambda: None, actor_name="work").send()

        garbage, delivery = self.run_ready()

        self.assertEqual((garbage.fate, delivery.fate), (Fate.DEAD, Fate.DONE))
        self.assertEqual(delivery, sent)
        (row,) = self.rows(Kind.DEAD)
        self.assertEqual((bytes(row.body), row.message_id, row.queue_name), (b"?", None, "default"))
        self.assertEqual(row.reason, "undecodable")
        self.assertIn("not JSON", row.error)


class UnknownActorTests(ExecutorCase):
    def setUp(self) -> None:
        super().setUp()
        self.message = self.broker.enqueue(make_message("newcomer", 1))

    def test_it_is_put_back_while_a_deploy_may_be_going_on(self):
        (delivery,) = self.run_ready()

        self.assertEqual(delivery.fate, Fate.POSTPONED)
        (row,) = self.rows()
        self.assertEqual((row.kind, row.reason), (Kind.SCHEDULED, "actor not deployed"))
        self.assertEqual(row.due_ms, START_MS + MISSING_ACTOR_DELAY_MS)
        self.assertEqual((row.message_id, row.attempts), (self.message.message_id, 0))

    def test_the_log_names_the_actor_and_says_what_to_do(self):
        self.run_ready()

        text = self.log.text()
        self.assertIn("WARNING", text)
        self.assertIn("There is no actor 'newcomer' in this process.", text)
        self.assertIn(f"Message {self.message.message_id} on queue 'default' is put back.", text)
        self.assertIn("Restart the workers", text)

    def test_it_runs_as_soon_as_the_actor_is_there(self):
        self.run_ready()
        self.declare(lambda x: x, actor_name="newcomer")
        self.clock.advance(MISSING_ACTOR_DELAY_MS)

        (delivery,) = self.run_due()

        self.assertEqual((delivery.fate, delivery.result), (Fate.DONE, 1))
        self.assertEqual(delivery.message_id, self.message.message_id)

    def test_after_the_grace_it_is_a_dead_letter(self):
        with actors_settings(UNKNOWN_ACTOR_GRACE=4 * MISSING_ACTOR_DELAY_MS):
            runs = self.run_all()

        self.assertEqual([each.fate for each in runs], [Fate.POSTPONED] * 4 + [Fate.DEAD])
        self.assertEqual(runs[-1].reason, Reason.UNKNOWN_ACTOR)
        self.assertIsInstance(runs[-1].exception, ActorNotFound)
        self.assertEqual(self.clock.now_ms, START_MS + 4 * MISSING_ACTOR_DELAY_MS)

    def test_the_grace_is_a_quarter_of_an_hour(self):
        self.run_all(limit=1_000)

        self.assertEqual(self.clock.now_ms, START_MS + 15 * 60_000)

    def test_a_grace_of_nothing_buries_at_once(self):
        with actors_settings(UNKNOWN_ACTOR_GRACE=0):
            (delivery,) = self.run_ready()

        self.assertEqual(delivery.reason, Reason.UNKNOWN_ACTOR)
        self.assertIn("ERROR", self.log.text())

    def test_nonsense_in_its_place_starts_the_grace_anew(self):
        message = make_message("newcomer", unknown_since="yesterday")

        self.assertEqual(self.run_message(message).fate, Fate.POSTPONED)


class RedeliveryTests(ExecutorCase):
    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.message = self.declare(self.calls.append, actor_name="work").message(1)

    def redeliver(self, *, crash: Any = None, **options: Any) -> Delivery:
        with patch.object(self.broker, "find_crashes", lambda ids: dict.fromkeys(ids, crash)):
            return self.run_message(self.message, redelivered=True, **options)

    def crash(self, crashes: int, *, overdue: bool = False) -> Any:
        return SimpleNamespace(crashes=crashes, overdue=overdue, detail="was killed by SIGSEGV")

    def test_without_a_past_it_runs(self):
        self.assertEqual(self.redeliver().fate, Fate.DONE)
        self.assertEqual(self.calls, [1])

    def test_one_that_was_settled_before_is_not_run_again(self):
        self.broker.declare_queue("default")
        settled = deliver(self.message, fate=Fate.RETRY, reason=Reason.RETRY, due_ms=1)
        self.broker.settle(self.broker.consume([], owner="before"), [settled])

        delivery = self.redeliver()

        self.assertEqual((delivery.fate, self.calls), (Fate.SKIPPED, []))

    def test_a_suspect_runs_alone(self):
        delivery = self.redeliver(crash=self.crash(2))

        self.assertTrue(delivery.alone)
        self.assertEqual((delivery.fate, self.calls), (Fate.DONE, [1]))

    def test_at_the_limit_it_is_a_dead_letter_that_says_how_its_worker_died(self):
        for limit in (2, 5):
            with self.subTest(limit), actors_settings(CRASH_LIMIT=limit):
                delivery = self.redeliver(crash=self.crash(limit))

                self.assertEqual(
                    (delivery.fate, delivery.reason), (Fate.DEAD, Reason.KILLED_WORKER)
                )
                self.assertIn(f"{limit} worker processes died", str(delivery.exception))
                self.assertIn("was killed by SIGSEGV", str(delivery.exception))
        self.assertEqual(self.calls, [])
        self.assertIn(f"Buried message {self.message.message_id}", self.log.text())

    def test_one_whose_process_was_ended_for_its_time_limit_has_failed_once_more(self):
        delivery = self.redeliver(crash=self.crash(0, overdue=True))

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertIsInstance(delivery.exception, TimeLimitExceeded)
        self.assertEqual(self.calls, [])

    def test_at_the_end_of_its_retries_that_is_a_time_limit_not_honoured(self):
        self.message = self.message.copy(options={"max_retries": 0})

        delivery = self.redeliver(crash=self.crash(0, overdue=True))

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.TIME_LIMIT))

    def test_a_first_delivery_asks_nobody(self):
        with patch.object(self.broker, "find_crashes", side_effect=AssertionError):
            self.assertEqual(self.run_message(self.message).fate, Fate.DONE)

    def test_while_the_past_cannot_be_looked_up_it_is_put_back(self):
        error = OperationalError("the database is gone")

        with (
            patch.object(self.broker, "find_crashes", side_effect=error),
            patch.object(module, "LOOK_UP_PAUSE_S", 0.0),
        ):
            delivery = self.run_message(self.message, redelivered=True)

        self.assertEqual((delivery.fate, self.calls), (Fate.PUT_BACK, []))
        self.assertIn("the database is gone", self.log.text())


class AdmissionTests(ExecutorCase):
    """What ``before_process_message`` can decide."""

    def run_with(self, decide: Any) -> Any:
        calls: list[Any] = []

        class Policy(Middleware):
            def before_process_message(self, broker, message):
                decide(message)

            def after_process_message(self, broker, message, *, result=None, exception=None):
                calls.append("processed")

            def after_skip_message(self, broker, message):
                calls.append("skipped")

        def work():
            calls.append("ran")

        self.use_middleware(Policy(), Retries())
        self.replace(work, "work").send()
        (delivery,) = self.run_ready()
        self.calls = calls
        return delivery

    def test_skip_message_is_acknowledged_and_told_to_the_skip_hooks_only(self):
        def skip(message):
            raise SkipMessage("not today")

        delivery = self.run_with(skip)

        self.assertEqual((delivery.fate, self.calls), (Fate.SKIPPED, ["skipped"]))
        self.assertEqual(self.broker.queue_size("default"), (0, 0))
        self.assertEqual(self.rows(*Kind), [])

    def test_a_message_that_was_failed_too_is_a_dead_letter_with_the_skip_as_its_error(self):
        def fail_and_skip(message):
            message.fail()
            raise SkipMessage("never")

        delivery = self.run_with(fail_and_skip)

        self.assertEqual((delivery.fate, self.calls), (Fate.DEAD, ["skipped"]))
        self.assertIsInstance(delivery.exception, SkipMessage)
        self.assertEqual(self.rows(Kind.DEAD)[0].error, "never")

    def test_failing_it_is_enough(self):
        delivery = self.run_with(lambda message: message.fail())

        self.assertEqual((delivery.fate, self.calls), (Fate.DEAD, ["skipped"]))
        self.assertEqual((delivery.reason, delivery.exception), (Reason.REJECTED, None))

    def test_another_middleware_error_is_a_failed_run(self):
        def refuse(message):
            raise MiddlewareError("too busy")

        delivery = self.run_with(refuse)

        self.assertEqual((delivery.fate, self.calls), (Fate.RETRY, ["processed"]))

    def test_an_error_in_the_hook_is_logged_and_the_message_runs(self):
        def stumble(message):
            raise ValueError("broken policy")

        delivery = self.run_with(stumble)

        self.assertEqual((delivery.fate, self.calls), (Fate.DONE, ["ran", "processed"]))
        self.assertIn("broken policy", self.log.text())


class ConclusionTests(ExecutorCase):
    """What ``after_process_message`` can decide."""

    def run_with(self, decide: Any, *errors: BaseException) -> Delivery:
        class Policy(Middleware):
            def after_process_message(self, broker, message, *, result=None, exception=None):
                decide(message)

        self.use_middleware(Policy())
        return self.work(Failing(*errors).as_function())

    def test_a_failure_that_nobody_decides_about_is_a_dead_letter(self):
        delivery = self.run_with(lambda message: None, ValueError("no"))

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.REJECTED))

    def test_a_hook_may_retry_or_bury_what_has_succeeded(self):
        self.assertEqual(self.run_with(lambda message: message.fail()).fate, Fate.DEAD)
        retried = self.run_with(lambda message: message.retry(1_000))
        self.assertEqual((retried.fate, retried.due_ms), (Fate.RETRY, START_MS + 1_000))
        self.assertNotIn("retries", retried.options)

    def test_whatever_a_hook_raises_forgets_no_message(self):
        for error in (MiddlewareError("heard"), SystemExit(1), asyncio.CancelledError()):

            def fail(message, error=error):
                raise error

            with self.subTest(error=error):
                self.assertEqual(self.run_with(fail).fate, Fate.DEAD)
                failed = self.run_with(fail, ValueError("the actor's own"))
                self.assertEqual(failed.fate, Fate.DEAD)
                self.assertIn("the actor's own", str(failed.exception))

    def test_an_error_of_the_engine_itself_forgets_no_message(self):
        with patch.object(self.broker, "get_actor", side_effect=RuntimeError("bug")):
            delivery = self.work(lambda: None)

        self.assertEqual((delivery.fate, delivery.reason), (Fate.DEAD, Reason.REJECTED))
        self.assertIn("bug", str(delivery.exception))
        self.assertIn("Could not decide about message work()", self.log.text())


class FailTests(ExecutorCase):
    """``fail()`` settles what somebody else has ended."""

    def end(self, error: BaseException, **options: Any) -> Any:
        message = self.replace(lambda: None, "work").message_with_options(**options)
        delivery = arrive(message)
        executor = Executor(self.broker)
        executor.prepare(delivery)
        executor.fail(delivery, error)
        return delivery

    def test_it_is_retried_as_any_failure(self):
        delivery = self.end(TimeLimitExceeded("stuck"))

        self.assertEqual(delivery.fate, Fate.RETRY)
        self.assertEqual(delivery.message.options["retries"], 1)

    def test_at_the_end_the_reason_is_the_time_limit(self):
        self.assertEqual(
            self.end(TimeLimitExceeded("stuck"), max_retries=0).reason, Reason.TIME_LIMIT
        )
        self.assertEqual(self.end(ValueError("no"), max_retries=0).reason, Reason.RETRIES_EXHAUSTED)

    def test_it_never_raises(self):
        class Heard(Middleware):
            def after_process_message(self, broker, message, *, result=None, exception=None):
                raise MiddlewareError("heard")

        self.use_middleware(Heard())
        self.assertEqual(self.end(ValueError("no")).fate, Fate.DEAD)
        self.use_middleware(Retries())
        message = self.replace(lambda: None, "work").message().copy(options={"throws": "x"})
        delivery = arrive(message)
        Executor(self.broker).prepare(delivery)

        Executor(self.broker).fail(delivery, ValueError("no"))

        self.assertEqual(delivery.fate, Fate.DEAD)


class FakeSlot:
    """A slot that notes what it is told, and raises what a test wants when the actor ends."""

    def __init__(self, *at_end: BaseException) -> None:
        self.told: list[str] = []
        self.at_end = list(at_end)

    def begin(self, delivery: Delivery) -> None:
        self.told.append("begin")

    def end(self, delivery: Delivery) -> None:
        self.told.append("end")
        if self.at_end:
            raise self.at_end.pop(0)


class SlotTests(ExecutorCase):
    def run_in(self, slot: FakeSlot, function: Any) -> Delivery:
        delivery = arrive(self.replace(function, "work").message())
        Executor(self.broker).run(delivery, slot)
        return delivery

    def test_it_is_told_when_the_actors_own_code_begins_and_ends(self):
        slot = FakeSlot()

        class Watch(Middleware):
            def before_process_message(self, broker, message):
                slot.told.append("before")

            def after_process_message(self, broker, message, *, result=None, exception=None):
                slot.told.append("after")

        self.use_middleware(Watch())
        self.run_in(slot, lambda: slot.told.append("run"))

        self.assertEqual(slot.told, ["before", "begin", "run", "end", "after"])

    def test_it_is_told_of_the_end_of_a_failure_too(self):
        slot = FakeSlot()

        delivery = self.run_in(slot, lambda: 1 / 0)

        self.assertEqual((slot.told, delivery.fate), (["begin", "end"], Fate.RETRY))

    def test_an_interrupt_that_comes_when_the_actor_has_returned_changes_nothing(self):
        for interrupt in (TimeLimitExceeded(), Shutdown(), Interrupt()):
            slot = FakeSlot(interrupt)
            with self.subTest(interrupt=interrupt):
                delivery = self.run_in(slot, lambda: "value")

                self.assertEqual((delivery.fate, delivery.result), (Fate.DONE, "value"))
                self.assertEqual(slot.told, ["begin", "end", "end"])

    def test_an_interrupt_as_the_actor_begins_is_the_actors(self):
        slot = FakeSlot()
        slot.begin = Failing(TimeLimitExceeded()).as_function()  # type: ignore[method-assign]

        delivery = self.run_in(slot, lambda: "value")

        self.assertIsInstance(delivery.exception, TimeLimitExceeded)
        self.assertEqual(slot.told, ["end"])

    def test_a_delivery_that_was_taken_away_is_left_alone(self):
        for function in (lambda: "value", lambda: 1 / 0):
            delivery = arrive(self.replace(function, "work").message())

            with self.subTest(function=function), self.assertRaises(Abandoned):
                Executor(self.broker).run(delivery, FakeSlot(Abandoned()))

            self.assertEqual((delivery.fate, delivery.exception), (None, None))
        self.assertNotIn("Failed", self.log.text())

    def test_a_message_that_may_not_run_never_begins(self):
        slot = FakeSlot()

        Executor(self.broker).run(Delivery(b"?", queue_name="q"), slot)

        self.assertEqual(slot.told, [])


class PrepareTests(ExecutorCase):
    def test_it_says_whether_the_message_may_run(self):
        executor = Executor(self.broker)
        good = arrive(self.declare(lambda: None, actor_name="work").message())

        self.assertTrue(executor.prepare(good))
        self.assertFalse(executor.prepare(Delivery(b"?", queue_name="q")))
        self.assertFalse(executor.prepare(arrive(make_message("nobody"))))
        self.assertIsNone(good.fate)

    def test_preparing_again_changes_nothing(self):
        executor = Executor(self.broker)
        good = arrive(self.declare(lambda: None, actor_name="work").message())
        bad = Delivery(b"?", queue_name="q")

        for delivery, may_run in ((good, True), (bad, False)):
            executor.prepare(delivery)
            message, error = delivery.message, delivery.exception

            self.assertEqual(executor.prepare(delivery), may_run)
            self.assertIs(delivery.message, message)
            self.assertIs(delivery.exception, error)


class SensitiveTests(ExecutorCase):
    """No sensitive argument is shown anywhere, however its message ends."""

    def shown(self) -> str:
        """Return everything an operator sees: the log, and the rows of the waiting room."""
        columns = ("call", "error", "error_class", "traceback", "reason")
        rows = [str(getattr(row, name)) for row in self.rows(*Kind) for name in columns]
        options = [str(row.message.options) for row in self.rows(*Kind) if row.message]
        return "\n".join([self.log.text(), *rows, *options])

    def charge(self, error: BaseException, **options: Any) -> str:
        def charge(card, amount):
            raise error

        declared = self.replace(charge, "charge", sensitive=("card",), **options)
        card = {"number": CARD, "more": [{"code": CODE}]}
        declared.send(card, 5)
        declared.send_with_options(kwargs={"card": card, "amount": 5})
        self.run_ready()
        return self.shown()

    def assertHidden(self, text: str) -> None:
        self.assertNotIn(CARD, text)
        self.assertNotIn(CODE, text)
        self.assertIn("charge(***, 5)", text)
        self.assertIn("charge(card=***, amount=5)", text)

    def test_in_a_failure_that_is_retried(self):
        text = self.charge(ValueError(f"{CARD} with {CODE} was declined"))

        self.assertHidden(text)
        self.assertIn("*** with *** was declined", text)

    def test_in_a_dead_letter(self):
        self.assertHidden(self.charge(ValueError(f"{CARD} {CODE}"), max_retries=0))

    def test_in_an_expected_exception(self):
        self.assertHidden(self.charge(ValueError(f"{CARD} {CODE}"), throws=ValueError))

    def test_in_the_reason_of_a_retry(self):
        self.assertHidden(self.charge(Retry(f"{CARD} {CODE}", delay=5)))

    def test_in_an_interrupted_message(self):
        self.assertHidden(self.charge(Shutdown()))

    def test_in_a_chain_of_causes(self):
        try:
            try:
                raise KeyError(CARD)
            except KeyError as cause:
                raise ValueError("no") from cause
        except ValueError as error:
            chained = error

        self.assertHidden(self.charge(chained))

    def test_in_a_message_the_engine_stumbled_over(self):
        with patch.object(self.broker, "get_actor", side_effect=RuntimeError(f"{CARD} {CODE}")):
            text = self.charge(ValueError())

        self.assertHidden(text)

    def test_in_a_message_that_waits(self):
        declared = self.declare(lambda card: None, actor_name="charge", sensitive=("card",))

        declared.send_with_options(args=(CARD,), delay=1_000)

        self.assertNotIn(CARD, self.shown())

    def test_in_a_suspect(self):
        declared = self.declare(lambda card: None, actor_name="charge", sensitive=("card",))
        record = SimpleNamespace(crashes=3, overdue=False, detail="was killed")

        with patch.object(self.broker, "find_crashes", lambda ids: dict.fromkeys(ids, record)):
            delivery = self.run_message(declared.message(CARD), redelivered=True)

        self.assertEqual(delivery.reason, Reason.KILLED_WORKER)
        self.assertNotIn(CARD, self.shown())
        self.assertIn("charge(***)", self.shown())

    def test_not_even_a_part_of_a_value_that_is_longer_than_what_is_kept(self):
        secret = "".join(f"{number}-" for number in range(30_000))

        def publish(text):
            raise ValueError(text)

        self.declare(publish, sensitive=("text",)).send(secret)
        self.run_ready()

        self.assertNotIn("29999-", self.shown())
