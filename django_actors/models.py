"""
The tables: the waiting room, the database broker's queue, who holds what, and how it goes.

Times the engine decides by are milliseconds since 1970: they mean the same with
and without ``USE_TZ`` on every database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from . import clock
from .errors import DecodeError, UntrustedMessage
from .fingerprints import FINGERPRINT_LENGTH
from .message import MAX_ID_LENGTH, MAX_NAME_LENGTH, Envelope, Message
from .signing import unseal

OWNER_LENGTH = 64
FRAME_LENGTH = 255
SHORT_ERROR = 500

# What a row is called where only a line is free for it.
MAX_TITLE = 120


class Kind(models.TextChoices):
    """What a row of the waiting room is."""

    SCHEDULED = "scheduled", _("scheduled")
    OUTBOX = "outbox", _("outbox")
    DEAD = "dead", _("dead letter")


class WaitingMessage(models.Model):
    """
    A message that is not in the broker: scheduled, in the outbox, or dead.

    One row a message: a retry takes the place of what was there before.
    """

    # Null for bytes that are no message: of those there may be many.
    message_id = models.CharField(  # noqa: DJ001
        _("message id"), max_length=MAX_ID_LENGTH, null=True, unique=True, editable=False
    )
    kind = models.CharField(_("kind"), max_length=16, choices=Kind, editable=False)
    queue_name = models.CharField(_("queue"), max_length=MAX_NAME_LENGTH, editable=False)
    actor_name = models.CharField(
        _("actor"), max_length=MAX_NAME_LENGTH, blank=True, editable=False
    )
    priority = models.IntegerField(_("priority"), default=0, editable=False)
    body = models.BinaryField(_("body"), editable=False)
    call = models.TextField(_("call"), blank=True, editable=False)
    reason = models.CharField(_("reason"), max_length=32, editable=False)
    attempts = models.PositiveIntegerField(_("attempts"), default=0, editable=False)
    error_class = models.CharField(_("exception"), max_length=255, blank=True, editable=False)
    error = models.TextField(_("error"), blank=True, editable=False)
    traceback = models.TextField(_("traceback"), blank=True, editable=False)
    frame = models.CharField(
        _("raised in"), max_length=FRAME_LENGTH, blank=True, default="", editable=False
    )
    # Of the error group; empty for what has not failed.
    fingerprint = models.CharField(
        max_length=FINGERPRINT_LENGTH, blank=True, default="", editable=False
    )
    due_ms = models.BigIntegerField(_("due"), null=True, editable=False)
    # Of a retry: how many there may be; null if a function decides, or nothing.
    max_retries = models.BigIntegerField(_("retries at most"), null=True, editable=False)
    stored_at = models.DateTimeField(_("stored at"), editable=False)
    claimed_by = models.CharField(max_length=OWNER_LENGTH, blank=True, default="", editable=False)
    # Whether a dispatcher has had it in hand: the broker may have its message already. The
    # default is the database's, too: code from before this column writes rows without it.
    moving = models.BooleanField(default=False, db_default=False, editable=False)

    class Meta:
        verbose_name = _("waiting message")
        verbose_name_plural = _("waiting messages")
        indexes: ClassVar = [
            # Dead letters have no due_ms: this index holds only what will move.
            models.Index(fields=["due_ms"], name="actors_due"),
            models.Index(fields=["kind", "stored_at"], name="actors_kind"),
            models.Index(fields=["claimed_by"], name="actors_waiting_claim"),
            # The dead letters of an error group.
            models.Index(fields=["fingerprint", "kind", "id"], name="actors_waiting_group"),
        ]

    def __str__(self) -> str:
        return self.call if len(self.call) <= MAX_TITLE else f"{self.call[: MAX_TITLE - 1]}…"

    @property
    def available_at(self) -> datetime | None:
        """When the message becomes ready, aware and in UTC; ``None`` for a dead letter."""
        return None if self.due_ms is None else clock.from_ms(self.due_ms)

    @property
    def message(self) -> Message | None:
        """The decoded message, or ``None`` if the bytes are none."""
        try:
            return Message.decode(bytes(self.body))
        except DecodeError:
            return None

    @property
    def runnable(self) -> Message | None:
        """The message, or ``None`` if it may not run again as it is: its signature is bad."""
        if self.message_id is None:
            return None
        try:
            return unseal(bytes(self.body))
        except (DecodeError, UntrustedMessage):
            return None

    def envelope(self) -> Envelope:
        """Return what a broker needs to carry the message."""
        return Envelope(self.message_id or "", self.queue_name, self.priority, bytes(self.body))


class DeadLetterManager(models.Manager["DeadLetter"]):
    """Rows of the waiting room that are dead letters."""

    def get_queryset(self) -> models.QuerySet[DeadLetter]:
        return super().get_queryset().filter(kind=Kind.DEAD)


class DeadLetter(WaitingMessage):
    """A message that will not run again by itself."""

    objects: ClassVar[Any] = DeadLetterManager()

    class Meta:
        proxy = True
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        permissions: ClassVar = [
            ("requeue_deadletter", "Can requeue dead letters"),
            ("edit_deadletter", "Can edit the arguments of dead letters"),
            ("arguments_deadletter", "Can view the sensitive arguments of dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
        ]


class ScheduledMessageManager(models.Manager["ScheduledMessage"]):
    """Rows of the waiting room that wait for their time."""

    def get_queryset(self) -> models.QuerySet[ScheduledMessage]:
        return super().get_queryset().exclude(kind=Kind.DEAD)


class ScheduledMessage(WaitingMessage):
    """A message that waits for its time: delayed, to be retried, or in the outbox."""

    objects: ClassVar[Any] = ScheduledMessageManager()

    class Meta:
        proxy = True
        verbose_name = _("scheduled message")
        verbose_name_plural = _("scheduled messages")
        permissions: ClassVar = [
            ("run_scheduledmessage", "Can run scheduled messages now or at another time"),
            ("cancel_scheduledmessage", "Can cancel scheduled messages"),
            (
                "arguments_scheduledmessage",
                "Can view the sensitive arguments of scheduled messages",
            ),
        ]


class QueuedMessage(models.Model):
    """A message that is ready to run; the queue of the database broker."""

    queue_name = models.CharField(max_length=MAX_NAME_LENGTH)
    priority = models.IntegerField(default=0)
    message_id = models.CharField(max_length=MAX_ID_LENGTH)
    body = models.BinaryField()
    claimed_by = models.CharField(max_length=OWNER_LENGTH, blank=True, default="")
    redeliveries = models.PositiveIntegerField(default=0)
    enqueued_ms = models.BigIntegerField()

    class Meta:
        verbose_name = _("queued message")
        verbose_name_plural = _("queued messages")
        indexes: ClassVar = [
            # Unclaimed messages of a queue in the order they run, and the claims of an owner.
            models.Index(
                fields=["claimed_by", "queue_name", "priority", "id"], name="actors_ready"
            ),
        ]

    def __str__(self) -> str:
        return self.message_id


class Lease(models.Model):
    """The promise of a worker process that it lives; its claims are good as long as this is."""

    owner = models.CharField(max_length=OWNER_LENGTH, primary_key=True)
    expires_ms = models.BigIntegerField()
    host = models.CharField(max_length=255, blank=True)
    pid = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")
        indexes: ClassVar = [models.Index(fields=["expires_ms"], name="actors_lease_expiry")]

    def __str__(self) -> str:
        return self.owner


class CrashRecord(models.Model):
    """How often worker processes died while they ran a message."""

    message_id = models.CharField(max_length=MAX_ID_LENGTH, primary_key=True)
    crashes = models.PositiveIntegerField(default=0)
    overdue = models.BooleanField(default=False)
    detail = models.CharField(max_length=255, blank=True)
    updated_ms = models.BigIntegerField()

    class Meta:
        verbose_name = _("crash record")
        verbose_name_plural = _("crash records")
        indexes: ClassVar = [models.Index(fields=["updated_ms"], name="actors_crash_updated")]

    def __str__(self) -> str:
        return self.message_id


class RabbitmqLane(models.Model):
    """A priority of a queue that has, or had, a physical queue on RabbitMQ."""

    namespace = models.CharField(max_length=64)
    queue_name = models.CharField(max_length=MAX_NAME_LENGTH)
    priority = models.IntegerField()

    class Meta:
        verbose_name = _("RabbitMQ lane")
        verbose_name_plural = _("RabbitMQ lanes")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["namespace", "queue_name", "priority"], name="actors_rabbitmq_lane"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.namespace}.{self.queue_name}.{self.priority}"


class WorkerRecord(models.Model):
    """A worker process that lives: it renews its row every few seconds, and takes it along."""

    owner = models.CharField(max_length=OWNER_LENGTH, primary_key=True, editable=False)
    host = models.CharField(_("host"), max_length=255, editable=False)
    pid = models.PositiveIntegerField(_("PID"), editable=False)
    # A JSON list of names.
    queues = models.TextField(_("queues"), editable=False)
    threads = models.PositiveIntegerField(_("threads"), editable=False)
    busy = models.PositiveIntegerField(_("busy threads"), default=0, editable=False)
    # A JSON list of objects with message_id, actor_name, queue_name, since_ms.
    running = models.TextField(_("running"), default="[]", editable=False)
    memory_bytes = models.BigIntegerField(_("memory"), default=0, editable=False)
    started_ms = models.BigIntegerField(_("started"), editable=False)
    seen_ms = models.BigIntegerField(_("seen"), editable=False)

    class Meta:
        verbose_name = _("worker process")
        verbose_name_plural = _("worker processes")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class FailedStart(models.Model):
    """
    A place for a worker process whose last one died before it was ready.

    The supervisor writes it, and deletes it when a process of this place is ready.
    """

    key = models.CharField(max_length=OWNER_LENGTH, primary_key=True, editable=False)
    host = models.CharField(_("host"), max_length=255, editable=False)
    # Of the supervisor.
    pid = models.PositiveIntegerField(_("PID"), editable=False)
    number = models.PositiveIntegerField(_("worker process"), editable=False)
    # In a row, none of them ready.
    deaths = models.PositiveIntegerField(_("deaths"), editable=False)
    detail = models.CharField(_("how it died"), max_length=SHORT_ERROR, editable=False)
    seen_ms = models.BigIntegerField(_("seen"), editable=False)

    class Meta:
        verbose_name = _("failed start")
        verbose_name_plural = _("failed starts")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid} #{self.number}"


class Overview(WorkerRecord):
    """The page of the admin about queues and workers, and who may see and use it."""

    class Meta:
        proxy = True
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        default_permissions = ("view",)
        permissions: ClassVar = [("pause_overview", "Can pause and resume queues")]


class Period(models.TextChoices):
    """For how long the counts of a row are."""

    MINUTE = "minute", _("minute")
    HOUR = "hour", _("hour")


class ActorCount(models.Model):
    """What became of the messages of an actor from one queue, in a minute or an hour."""

    period = models.CharField(max_length=8, choices=Period, editable=False)
    bucket_ms = models.BigIntegerField(editable=False)
    queue_name = models.CharField(_("queue"), max_length=MAX_NAME_LENGTH, editable=False)
    actor_name = models.CharField(_("actor"), max_length=MAX_NAME_LENGTH, editable=False)
    succeeded = models.BigIntegerField(_("succeeded"), default=0, editable=False)
    # Attempts that raised; each of them was retried, or is dead.
    failed = models.BigIntegerField(_("failed"), default=0, editable=False)
    retried = models.BigIntegerField(_("retried"), default=0, editable=False)
    dead = models.BigIntegerField(_("dead"), default=0, editable=False)
    run_ms = models.BigIntegerField(_("run time"), default=0, editable=False)

    class Meta:
        verbose_name = _("actor count")
        verbose_name_plural = _("actor counts")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["period", "bucket_ms", "queue_name", "actor_name"], name="actors_count"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} ({self.queue_name}), {self.period} {self.bucket_ms}"


class ActorSummary(ActorCount):
    """The page of the admin about actors, and who may see it and send."""

    class Meta:
        proxy = True
        verbose_name = _("actor")
        verbose_name_plural = _("actors")
        default_permissions = ("view",)
        permissions: ClassVar = [("send_actorsummary", "Can send messages to actors")]

    def __str__(self) -> str:
        return self.actor_name


class PausedQueue(models.Model):
    """A queue of which no worker begins a message."""

    queue_name = models.CharField(
        _("queue"), max_length=MAX_NAME_LENGTH, primary_key=True, editable=False
    )
    since_ms = models.BigIntegerField(_("since"), editable=False)
    paused_by = models.CharField(_("paused by"), max_length=255, blank=True, editable=False)

    class Meta:
        verbose_name = _("paused queue")
        verbose_name_plural = _("paused queues")

    def __str__(self) -> str:
        return self.queue_name


class Outcome(models.TextChoices):
    """How an attempt to run a message ended, or what an operator did to the message."""

    RETRIED = "retried", _("retried")
    DEAD = "dead", _("dead letter")
    SUCCEEDED = "succeeded", _("succeeded")
    CRASHED = "crashed", _("its worker died")
    REQUEUED = "requeued", _("requeued")
    RESCHEDULED = "rescheduled", _("rescheduled")
    DISCARDED = "discarded", _("discarded")
    CANCELLED = "cancelled", _("cancelled")


class Attempt(models.Model):
    """
    A line in the story of a message that has failed.

    A message that succeeds at once has none. One that failed has a line for each attempt, and
    for the success that ended it. What an operator does to a message is a line, too.
    """

    message_id = models.CharField(_("message id"), max_length=MAX_ID_LENGTH)
    # From 1; 0 where nobody knows, and for what an operator did.
    number = models.PositiveIntegerField(_("attempt"))
    outcome = models.CharField(_("outcome"), max_length=16, choices=Outcome)
    queue_name = models.CharField(_("queue"), max_length=MAX_NAME_LENGTH)
    actor_name = models.CharField(_("actor"), max_length=MAX_NAME_LENGTH)
    began_ms = models.BigIntegerField(_("began"), null=True)
    ended_ms = models.BigIntegerField(_("ended"))
    host = models.CharField(_("host"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process"), default=0)
    error_class = models.CharField(_("exception"), max_length=255, blank=True)
    error = models.CharField(_("error"), max_length=SHORT_ERROR, blank=True)
    frame = models.CharField(_("raised in"), max_length=FRAME_LENGTH, blank=True)
    # When it is to run then: after a failure, or because an operator said so.
    retry_ms = models.BigIntegerField(_("retry at"), null=True)
    by = models.CharField(_("by"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        constraints: ClassVar = [
            # A settlement that is tried again writes nothing twice.
            models.UniqueConstraint(
                fields=["message_id", "number", "began_ms"], name="actors_attempt"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["ended_ms"], name="actors_attempt_ended")]

    def __str__(self) -> str:
        return f"{self.message_id} #{self.number}: {self.outcome}"


class ErrorGroup(models.Model):
    """Failures of one actor with one class of exception, raised in one place of the project."""

    fingerprint = models.CharField(max_length=FINGERPRINT_LENGTH, primary_key=True, editable=False)
    actor_name = models.CharField(_("actor"), max_length=MAX_NAME_LENGTH, editable=False)
    # The exception; the reason of the dead letters where there was none.
    error_class = models.CharField(_("exception"), max_length=255, editable=False)
    frame = models.CharField(_("raised in"), max_length=FRAME_LENGTH, editable=False)
    # Of the latest failure.
    error = models.CharField(_("error"), max_length=SHORT_ERROR, editable=False)
    traceback = models.TextField(_("traceback"), editable=False)
    first_ms = models.BigIntegerField(_("first seen"), editable=False)
    last_ms = models.BigIntegerField(_("last seen"), editable=False)
    count = models.PositiveBigIntegerField(_("failures"), default=0, editable=False)

    class Meta:
        verbose_name = _("error group")
        verbose_name_plural = _("error groups")
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["last_ms"], name="actors_group_last")]

    def __str__(self) -> str:
        return f"{self.actor_name}: {self.error_class}"


class ErrorCount(models.Model):
    """How often an error group was seen in a short stretch of time."""

    fingerprint = models.CharField(max_length=FINGERPRINT_LENGTH)
    start_ms = models.BigIntegerField()
    count = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("error count")
        verbose_name_plural = _("error counts")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["fingerprint", "start_ms"], name="actors_error_count"),
        ]
        indexes: ClassVar = [models.Index(fields=["start_ms"], name="actors_error_count_start")]

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.start_ms}: {self.count}"
