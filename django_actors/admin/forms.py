"""
What an operator is asked before something is done.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors import clock
from django_actors.encoding import encode_checked
from django_actors.errors import MessageTooLarge, UnencodableArgument
from django_actors.message import Message, decode_json
from django_actors.redaction import HIDDEN, carries_secret
from django_actors.registry import RegisteredActor

from .texts import make_visible

_UNITS = (
    ("1000", gettext_lazy("seconds")),
    ("60000", gettext_lazy("minutes")),
    ("3600000", gettext_lazy("hours")),
    ("86400000", gettext_lazy("days")),
)

MAX_AMOUNT = 100_000

_JSON_ATTRS = {"class": "actors-json", "rows": 10, "spellcheck": "false", "dir": "ltr"}


class DelayForm(forms.Form):
    """A duration from now."""

    amount = forms.IntegerField(
        label=gettext_lazy("Delay"), min_value=1, max_value=MAX_AMOUNT, initial=10
    )
    unit = forms.ChoiceField(label=gettext_lazy("Unit"), choices=_UNITS, initial="60000")

    def delay_ms(self) -> int:
        """Return the duration in milliseconds."""
        return int(self.cleaned_data["amount"]) * int(self.cleaned_data["unit"])

    def delay_text(self) -> str:
        """Return the duration in words."""
        unit = dict(_UNITS)[self.cleaned_data["unit"]]
        return f"{self.cleaned_data['amount']} {unit}"


class DueForm(forms.Form):
    """A point in time."""

    due = forms.DateTimeField(
        label=gettext_lazy("New time"),
        widget=forms.DateTimeInput(
            format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": 1}
        ),
        help_text=gettext_lazy("In the time zone in which this site shows times."),
    )

    def clean_due(self) -> datetime:
        due: datetime = self.cleaned_data["due"]
        if timezone.is_naive(due):
            due = timezone.make_aware(due, timezone.get_default_timezone())
        if clock.datetime_to_ms(due) <= clock.now_ms():
            raise ValidationError(_("This time has passed. “Run now” runs a message at once."))
        return due

    def due_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return clock.datetime_to_ms(self.cleaned_data["due"])


class ArgumentsForm(forms.Form):
    """
    The arguments of a message, as JSON.

    A sensitive one shows as ``"***"``; left as it is, it stays what it was.

    Args:
        message: Whose arguments are edited.

        actor: Whose signature they must fit.
    """

    args = forms.CharField(
        label=gettext_lazy("Positional arguments"),
        widget=forms.Textarea(attrs=_JSON_ATTRS),
        help_text=gettext_lazy('A JSON list, such as [1, "two"].'),
    )
    kwargs = forms.CharField(
        label=gettext_lazy("Keyword arguments"),
        widget=forms.Textarea(attrs=_JSON_ATTRS),
        help_text=gettext_lazy('A JSON object, such as {"x": 1}.'),
    )

    def __init__(self, data: Any, *, message: Message, actor: RegisteredActor) -> None:
        self._message = message
        self._actor = actor
        self._sensitive = actor.options.get("sensitive", ())
        # By the parameter and by what stands for the value.
        self._secrets: dict[tuple[str, str], Any] = {}
        super().__init__(data, initial=self._show(message))

    @property
    def has_secrets(self) -> bool:
        """Whether an argument is hidden."""
        return bool(self._secrets)

    def _show(self, message: Message) -> dict[str, str]:
        names = self._actor.parameter_names(len(message.args))
        args = [self._hide(*pair) for pair in zip(names, message.args, strict=True)]
        kwargs = {name: self._hide(name, value) for name, value in message.kwargs.items()}
        return {"args": _to_json(args), "kwargs": _to_json(kwargs)}

    def _hide(self, name: str, value: Any) -> Any:
        if name not in self._sensitive and not carries_secret(value):
            return value
        # A parameter like *cards has several values: each has a sign of its own.
        number = sum(known == name for known, _ in self._secrets)
        sign = f"{HIDDEN}{number + 1}" if number else HIDDEN
        self._secrets[name, sign] = value
        return sign

    def clean_args(self) -> Any:
        return _from_json(self.cleaned_data["args"], list, _("This must be a JSON list."))

    def clean_kwargs(self) -> Any:
        return _from_json(self.cleaned_data["kwargs"], dict, _("This must be a JSON object."))

    def clean(self) -> dict[str, Any]:
        if self.errors:
            return self.cleaned_data
        args = self.cleaned_data["args"]
        names = self._actor.parameter_names(len(args))
        pairs = zip(names, args, strict=True)
        self.cleaned_data["args"] = tuple(self._restore(*pair) for pair in pairs)
        self.cleaned_data["kwargs"] = {
            name: self._restore(name, value) for name, value in self.cleaned_data["kwargs"].items()
        }
        self._check()
        return self.cleaned_data

    def _restore(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        unknown = (name, value) not in self._secrets
        if value == HIDDEN and unknown and name in self._sensitive:
            raise ValidationError(
                _("There is no value behind the stars of %(name)s. Write one."),
                params={"name": name},
            )
        return self._secrets.get((name, value), value)

    def _check(self) -> None:
        edited = self.edit(self._message)
        try:
            self._actor.message(*edited.args, **edited.kwargs)
            encode_checked(edited)
        except (TypeError, UnencodableArgument, MessageTooLarge) as error:
            raise ValidationError(make_visible(str(error))) from error

    def edit(self, message: Message) -> Message:
        """Return *message* with the new arguments."""
        return message.copy(args=self.cleaned_data["args"], kwargs=self.cleaned_data["kwargs"])


def _to_json(value: Any) -> str:
    # JSON takes the visible form of an invisible character for the same one.
    return make_visible(json.dumps(value, ensure_ascii=False, indent=2))


def _from_json(text: str, expected: type, complaint: str) -> Any:
    try:
        value = decode_json(text)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{complaint} {make_visible(str(error))}") from error
    if not isinstance(value, expected):
        raise ValidationError(complaint)
    return value
