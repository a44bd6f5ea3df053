"""
A form made from the signature of an actor, whose answers are JSON.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from inspect import Parameter
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_actors.encoding import encode_checked
from django_actors.errors import MessageTooLarge, UnencodableArgument
from django_actors.message import Message, decode_json
from django_actors.registry import RegisteredActor

from .texts import make_visible, shorten

# One argument of a name of its own cannot be taken for a field of the form.
PREFIX = "argument_"

MAX_DELAY_S = 10 * 365 * 86_400

_SEVERAL: Mapping[Any, tuple[type | None, Any]] = {
    Parameter.VAR_POSITIONAL: (list, gettext_lazy("A JSON list of further values.")),
    Parameter.VAR_KEYWORD: (dict, gettext_lazy("A JSON object of further keyword arguments.")),
}


class SendForm(forms.Form):
    """
    The arguments of a call, one field a parameter; an empty field stands for its default.

    Args:
        actor: Whose signature the arguments must fit.
    """

    delay_s = forms.IntegerField(
        label=gettext_lazy("Delay in seconds"),
        required=False,
        min_value=0,
        max_value=MAX_DELAY_S,
        help_text=gettext_lazy("How long it waits before it runs; at once if this is empty."),
    )

    def __init__(self, data: Any, *, actor: RegisteredActor) -> None:
        super().__init__(data)
        self._actor = actor
        self._parameters = read_parameters(actor)
        fields = {PREFIX + each.name: _field(each) for each in self._parameters}
        # The arguments come first, the delay last.
        self.fields = {**fields, **self.fields}

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            self.cleaned_data["args"], self.cleaned_data["kwargs"] = self._bind()
            self._check()
        return self.cleaned_data

    def _bind(self) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        missing = ""
        for parameter in self._parameters:
            value = self.cleaned_data[PREFIX + parameter.name]
            if value is EMPTY:
                positional = parameter.kind in (
                    Parameter.POSITIONAL_ONLY,
                    Parameter.POSITIONAL_OR_KEYWORD,
                )
                missing = missing or (parameter.name if positional else "")
            elif parameter.kind is Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = value
            elif not missing:
                several = parameter.kind is Parameter.VAR_POSITIONAL
                args += value if several else [value]
            elif parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
                kwargs[parameter.name] = value
            else:
                self._complain(parameter, missing)
        return args, kwargs

    def _complain(self, parameter: Parameter, missing: str) -> None:
        text = _("This can only be given if %(name)s is given, too.") % {"name": missing}
        self.add_error(PREFIX + parameter.name, text)

    def _check(self) -> None:
        if self.errors:
            return
        try:
            encode_checked(self.message())
        except (TypeError, ValueError, UnencodableArgument, MessageTooLarge) as error:
            raise ValidationError(make_visible(str(error))) from error

    def message(self) -> Message:
        """Return the message with the arguments that were given."""
        args, kwargs = self.cleaned_data["args"], self.cleaned_data["kwargs"]
        return cast(Message, self._actor.message(*args, **kwargs))

    def delay_ms(self) -> int | None:
        """Return the delay in milliseconds; ``None`` if there is none."""
        seconds = self.cleaned_data["delay_s"]
        return seconds * 1_000 if seconds else None


def read_parameters(actor: RegisteredActor) -> list[Parameter]:
    """Return the parameters of an actor; any number of any kind if nobody knows them."""
    try:
        return list(inspect.signature(cast(Any, actor)).parameters.values())
    except (TypeError, ValueError):
        return [
            Parameter("args", Parameter.VAR_POSITIONAL),
            Parameter("kwargs", Parameter.VAR_KEYWORD),
        ]


# What an empty field stands for; ``null`` is a value.
EMPTY = object()


class JSONText(forms.CharField):
    """A value as JSON, of a type where one is needed; ``EMPTY`` if nothing is written."""

    def __init__(self, *, expected: type | None, **options: Any) -> None:
        self._expected = expected
        widget = forms.Textarea(
            attrs={"class": "actors-json", "rows": 2, "spellcheck": "false", "dir": "ltr"}
        )
        super().__init__(widget=widget, **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return EMPTY
        try:
            found = decode_json(text)
        except (ValueError, RecursionError) as error:
            example = '"Ada"'
            raise ValidationError(
                _("This is not JSON: %(error)s. A text has double quotes: %(example)s."),
                params={"error": make_visible(str(error)), "example": example},
            ) from error
        if self._expected is not None and not isinstance(found, self._expected):
            raise ValidationError(self.help_text)
        return found


def _field(parameter: Parameter) -> JSONText:
    expected, text = _SEVERAL.get(parameter.kind, (None, gettext_lazy("A JSON value.")))
    required = expected is None and parameter.default is Parameter.empty
    return JSONText(
        expected=expected,
        required=required,
        label=str(parameter).partition(":")[0].partition("=")[0],
        help_text=format_lazy("{} {}", text, " ".join(_describe(parameter))),
    )


def _describe(parameter: Parameter) -> Iterator[str]:
    if parameter.annotation is not Parameter.empty:
        yield _("Type: %(type)s.") % {"type": shorten(_type_name(parameter.annotation))}
    if parameter.default is not Parameter.empty:
        yield _("Default: %(value)s.") % {"value": shorten(repr(parameter.default))}


def _type_name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
