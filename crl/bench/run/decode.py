"""JSON that anybody may have written, as typed values: parsed once, trusted from then on."""

import math
import types
import typing
from typing import Any

from crl.names import nearest

_WORDS = {
    str: "a text",
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    dict: "a dict by name",
    list: "a list",
    type(None): "null",
}


class DecodeError(ValueError):
    """What does not fit, and where, in one sentence."""


def decode(kind: Any, value: Any, where: str) -> Any:
    """``value``, parsed JSON, as the type ``kind``.

    kind: a scalar type, a dict or list of kinds, a union, Any, or a NamedTuple of kinds,
    which comes as a dict with at least the fields that have no default. where: the place of
    the value, for the sentence of a DecodeError.
    """
    if kind is Any:
        return value
    if hasattr(kind, "_fields"):
        return _decode_fields(kind, value, where)
    kinds = typing.get_args(kind)
    plain = typing.get_origin(kind) or kind
    if plain in (typing.Union, types.UnionType):
        return _decode_union(kinds, value, where)
    if plain is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not plain or (plain is float and not math.isfinite(value)):
        raise DecodeError(f"expected {_words(kind)} at {where}, got {_shortened(value)}")
    if plain is dict and kinds:
        return {k: decode(kinds[1], v, f"{where}.{k}") for k, v in value.items()}
    if plain is list and kinds:
        return [decode(kinds[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
    return value


def _decode_fields(kind: Any, value: Any, where: str) -> Any:
    if type(value) is not dict:
        raise DecodeError(f"expected a dict at {where}, got {_shortened(value)}")
    kinds = typing.get_type_hints(kind)
    for name in value:
        if name not in kinds:
            raise DecodeError(f"at {where}: {nearest(name, kinds, 'key')}")
    for name in kind._fields:
        if name not in value and name not in kind._field_defaults:
            raise DecodeError(f"at {where}: {name!r} is missing")
    return kind(**{k: decode(kinds[k], v, f"{where}.{k}") for k, v in value.items()})


def _decode_union(kinds: tuple, value: Any, where: str) -> Any:
    # A value of None is the None of the union; else the last kind has the word.
    *others, last = sorted(kinds, key=lambda kind: kind is not type(None))
    for kind in others:
        try:
            return decode(kind, value, where)
        except DecodeError:
            continue
    return decode(last, value, where)


def encode(value: Any) -> Any:
    """A value that ``decode`` gives back, as JSON types."""
    if hasattr(value, "_asdict"):
        return {k: encode(v) for k, v in value._asdict().items()}
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [encode(v) for v in value]
    return value


def _words(kind: Any) -> str:
    return _WORDS.get(typing.get_origin(kind) or kind, str(kind))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:76]} ..."
