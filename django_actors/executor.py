"""
The life of one delivery, as named steps.

No threads and no transport: the worker thread, the stub broker and the test
helpers all run this. What became of a delivery is written on it; who called
``run()`` has it settled by the broker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from django.db import Error as DatabaseError
from django.db import connections

from . import clock, moves
from .conf import settings
from .delivery import Delivery, Fate, Reason
from .errors import (
    ActorNotFound,
    DecodeError,
    Interrupt,
    MiddlewareError,
    Retry,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
    UntrustedMessage,
    exception_text,
)
from .message import Origin
from .middleware.base import call_hooks
from .past import note_pasts, past_of
from .redaction import format_traceback, redact, traceback_of
from .rows import exception_name, storable
from .signing import unseal

if TYPE_CHECKING:
    from .brokers.base import Broker

# The names operators search for, as in the guide.
logger = logging.getLogger("django_actors.worker.WorkerThread")

# How long a message for an actor this process lacks waits before it is tried again.
MISSING_ACTOR_DELAY_MS = 5_000

# How long a thread waits that could not look up the past of a message.
LOOK_UP_PAUSE_S = 1.0

# The end of a traceback that travels with a retried message.
TRAVELLING_TRACEBACK = 2_000


class Slot(Protocol):
    """Where a run takes place: told when the actor's own code begins and ends."""

    def begin(self, delivery: Delivery) -> None: ...
    def end(self, delivery: Delivery) -> None: ...


class Abandoned(BaseException):
    """Raised by a slot whose delivery was settled by somebody else in the meantime."""


class _Settled(Exception):
    """Ends the steps early: the fate of the delivery is decided."""


class Executor:
    """
    Take a delivery from its bytes to its fate.

    Args:
        broker: Whose middleware, waiting room and actors are used.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def run(self, delivery: Delivery, slot: Slot | None = None) -> None:
        """
        Run the actor of *delivery* and decide what becomes of it.

        Args:
            slot: Told when the actor's code begins and ends; it may raise an ``Interrupt``
                in between.

        Raises:
            Abandoned: the slot's owner has settled the delivery; nothing else is raised.
        """
        if not self.prepare(delivery):
            return
        try:
            self._admit(delivery)
            self._call(delivery, slot)
            self._conclude(delivery)
        except _Settled:
            return
        except Abandoned:
            raise
        # A hook may raise anything, too.
        except BaseException as error:
            self._give_up(delivery, error)

    def prepare(self, delivery: Delivery) -> bool:
        """
        Decode the message, see whether it is a suspect, find its actor; never raises.

        Returns:
            Whether the message may run; otherwise its fate is decided. Preparing a
            delivery again changes nothing.
        """
        if delivery.fate is not None or delivery.actor is not None:
            return delivery.fate is None
        try:
            self._decode(delivery)
            if delivery.redelivered or delivery.origin is Origin.DOUBTFUL_ROW:
                self._look_up(delivery)
            self._find_actor(delivery)
        except _Settled:
            return False
        except DatabaseError as error:
            self._look_up_later(delivery, error)
            return False
        except Exception as error:
            self._give_up(delivery, error)
            return False
        return True

    def look_up(self, deliveries: Sequence[Delivery]) -> None:
        """
        Find out the past of all that come again together; never raises.

        What cannot be found out now is looked up when the message is prepared.
        """
        again = [each for each in deliveries if each.redelivered]
        if not again:
            return
        try:
            note_pasts([each for each in again if self._has_message(each)], self._broker)
        except DatabaseError as error:
            logger.debug("Could not look up the past of %d messages: %s", len(again), error)
            self._drop_dead_connection()
        except Exception as error:
            # What it is shows again with the message it lies in.
            logger.debug("Could not look up the past of %d messages: %r", len(again), error)

    def _has_message(self, delivery: Delivery) -> bool:
        with suppress(_Settled):
            self._decode(delivery)
        return delivery.message is not None

    # ---- the steps -------------------------------------------------------------

    def _decode(self, delivery: Delivery) -> None:
        if delivery.message is not None:
            return
        try:
            delivery.message = unseal(delivery.body)
        except DecodeError as error:
            logger.error(
                "Buried %d bytes from queue %r that are no message: %s",
                len(delivery.body),
                delivery.queue_name,
                error,
            )
            self._bury(delivery, Reason.UNDECODABLE, error)
        except UntrustedMessage as error:
            # It stays without a message: nothing in the engine acts on what a stranger wrote.
            logger.error("Buried a message from queue %r: %s", delivery.queue_name, error)
            self._bury(delivery, Reason.BAD_SIGNATURE, error)

    def _look_up(self, delivery: Delivery) -> None:
        """Find out why a message may come a second time: settled already, or a suspect."""
        past = past_of(delivery, self._broker)
        # The row was written, the acknowledgement was not; or it is one copy too many.
        if past.is_settled or moves.is_late(delivery, self._broker.waiting_room.alias):
            delivery.fate = Fate.SKIPPED
            # A row that is there is another attempt's.
            delivery.origin = Origin.SENDER
            raise _Settled
        record = past.crash
        if record is None:
            return
        delivery.alone = True
        if record.crashes >= settings.CRASH_LIMIT:
            self._bury_killer(delivery, record.crashes, record.detail)
        if record.overdue:
            self._find_actor(delivery)
            self.fail(delivery, TimeLimitExceeded(record.detail))
            raise _Settled

    def _look_up_later(self, delivery: Delivery, error: DatabaseError) -> None:
        """Put back a message whose past cannot be looked up now, which is not its fault."""
        logger.warning("Put message %s back, and wait: %s", delivery.message_id, error)
        self._drop_dead_connection()
        time.sleep(LOOK_UP_PAUSE_S)
        delivery.fate = Fate.PUT_BACK

    def _drop_dead_connection(self) -> None:
        # It may be this thread's connection that is dead, and nothing else.
        connections[self._broker.waiting_room.alias].close_if_unusable_or_obsolete()

    def _bury_killer(self, delivery: Delivery, crashes: int, detail: str) -> None:
        text = f"{crashes} worker processes died while they ran it; the last one {detail}."
        logger.error(
            "Buried message %s (%s): %s", delivery.message_id, redact(delivery.message), text
        )
        self._bury(delivery, Reason.KILLED_WORKER, WorkerKilled(text))

    def _find_actor(self, delivery: Delivery) -> None:
        try:
            delivery.defaults = self._broker.actor_defaults()
            assert delivery.message is not None
            delivery.actor = self._broker.get_actor(delivery.message.actor_name)
        except ActorNotFound as error:
            self._keep_for_deploy(delivery, error)

    def _keep_for_deploy(self, delivery: Delivery, error: ActorNotFound) -> None:
        """Put a message for an unknown actor back while a deploy may be going on."""
        assert delivery.message is not None
        now = clock.now_ms()
        since = delivery.message.options.get("unknown_since")
        since = since if isinstance(since, int) else now
        if now - since >= settings.UNKNOWN_ACTOR_GRACE:
            logger.error("Buried message %s: %s", delivery.message_id, error)
            self._bury(delivery, Reason.UNKNOWN_ACTOR, error)
        logger.warning(
            "%s Message %s on queue %r is put back. Restart the workers if the actor is newer "
            "than they are, or import its module from a tasks.py.",
            error,
            delivery.message_id,
            delivery.queue_name,
        )
        delivery.message = delivery.message.copy(options={"unknown_since": since})
        delivery.postpone(MISSING_ACTOR_DELAY_MS, Reason.MISSING_ACTOR)
        raise _Settled

    def _bury(self, delivery: Delivery, reason: Reason, error: BaseException) -> None:
        delivery.exception = error
        delivery.fail(reason)
        raise _Settled

    def _admit(self, delivery: Delivery) -> None:
        """Ask the middleware whether the message may run."""
        try:
            call_hooks(self._broker.hooks.before_process_message, self._broker, delivery)
        except SkipMessage as skip:
            self._skip(delivery, skip)
        except MiddlewareError as error:
            # Heard as if the actor had raised it: the retries decide.
            self.fail(delivery, error)
            raise _Settled from None
        if delivery.failed:
            self._skip(delivery, None)

    def _skip(self, delivery: Delivery, skip: SkipMessage | None) -> None:
        if delivery.failed:
            delivery.exception = delivery.exception or skip
        else:
            delivery.fate = Fate.SKIPPED
        call_hooks(self._broker.hooks.after_skip_message, self._broker, delivery)
        raise _Settled

    def _call(self, delivery: Delivery, slot: Slot | None) -> None:
        message, actor = delivery.message, delivery.actor
        assert message is not None and actor is not None
        failure: BaseException | None = None
        delivery.began_ms = clock.now_ms()
        try:
            delivery.began = time.monotonic()
            if slot is not None:
                slot.begin(delivery)
            delivery.result = actor.run(*message.args, **message.kwargs)
        # SystemExit and the interrupts, too: no message ends a worker.
        except BaseException as error:
            failure = error
        while slot is not None:
            try:
                slot.end(delivery)
                break
            except Interrupt:
                # It came as the call began, too late for the actor.
                continue
        delivery.ended = time.monotonic()
        if failure is not None:
            delivery.exception = failure
            self._log_failure(delivery, failure)

    def _conclude(self, delivery: Delivery) -> None:
        """Have the middleware decide, and see to it that something was decided."""
        error = delivery.exception
        call_hooks(
            self._broker.hooks.after_process_message,
            self._broker,
            delivery,
            result=delivery.result,
            exception=error,
        )
        if delivery.fate is None:
            self._decide(delivery, error)
        if delivery.fate is Fate.RETRY and error is not None:
            _note_retry(delivery, error)

    def _decide(self, delivery: Delivery, error: BaseException | None) -> None:
        if error is None:
            delivery.fate = Fate.DONE
        elif isinstance(error, Shutdown):
            delivery.fate = Fate.PUT_BACK
        else:
            # Without a policy, or with one that failed, nothing is forgotten.
            delivery.fail(Reason.REJECTED)

    # ---- failures --------------------------------------------------------------

    def fail(self, delivery: Delivery, error: BaseException) -> None:
        """Settle a delivery as failed whose run was ended, or never came to its end."""
        delivery.exception = error
        try:
            self._log_failure(delivery, error)
            self._conclude(delivery)
        except Exception as trouble:
            self._give_up(delivery, trouble)
        if delivery.failed and isinstance(error, TimeLimitExceeded):
            delivery.reason = Reason.TIME_LIMIT

    def _give_up(self, delivery: Delivery, error: BaseException) -> None:
        """Keep a message the engine itself stumbled over."""
        shown = redact(delivery.message)
        logger.error(
            "Could not decide about message %s\n%s", shown, format_traceback(error, shown).rstrip()
        )
        delivery.exception = delivery.exception or error
        delivery.fail(Reason.REJECTED)

    def _log_failure(self, delivery: Delivery, error: BaseException) -> None:
        shown = redact(delivery.message)
        if isinstance(error, Retry):
            text = shown.hide(exception_text(error))
            logger.info("Message %s asked for a retry: %s", shown, text)
        elif isinstance(error, Shutdown):
            logger.info("Message %s was interrupted by the shutdown.", shown)
        elif isinstance(error, delivery.option("throws") or ()):
            text = shown.hide(exception_text(error))
            logger.info("Message %s raised %s: %s", shown, exception_name(error), text)
        else:
            logger.warning(
                "Failed to process message %s with unhandled exception.\n%s",
                shown,
                traceback_of(delivery, error).rstrip(),
            )


class WorkerKilled(Exception):
    """Stands on a dead letter whose runs ended the worker processes."""


def _note_retry(delivery: Delivery, error: BaseException) -> None:
    """Write on the message how often it was retried, and why."""
    assert delivery.message is not None
    retries = delivery.message.options.get("retries", 0)
    traceback = storable(traceback_of(delivery, error))
    delivery.message = delivery.message.copy(
        options={
            "retries": (retries if isinstance(retries, int) else 0) + 1,
            "traceback": traceback[-TRAVELLING_TRACEBACK:],
            "requeue_timestamp": clock.now_ms(),
            "eta": delivery.due_ms,
        }
    )
