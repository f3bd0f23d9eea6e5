"""Thrift's compact protocol, as far as the metadata of a Parquet file need it: values to bytes.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

_TRUE, _FALSE, _I32, _I64, _BINARY, _LIST, _STRUCT = 1, 2, 5, 6, 8, 9, 12
_SHORT_LIST_MAX = 14
_BYTES = [bytes((value,)) for value in range(0x80)]


class I64(NamedTuple):
    """An integer of 64 bits; an int is one of 32."""

    value: int


class Encoded(NamedTuple):
    """A struct in its bytes."""

    content: bytes


Value: TypeAlias = "bool | int | I64 | bytes | str | Sequence[Value] | Struct | Encoded"
"""A list has values of one kind, and is not empty. One that is a tuple, and all in it, is encoded once and kept."""

Struct: TypeAlias = Mapping[int, Value]
"""Values by the numbers of their fields, ascending."""


def varint(value: int) -> bytes:
    """A number from 0 on, seven bits a byte, the lowest first."""
    if value <= 0x7F:
        return _BYTES[value]
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def struct(fields: Struct) -> bytes:
    """The bytes of a struct. Raises OverflowError for a number that has not the bits of its kind."""
    parts, last = bytearray(), 0
    for number, value in fields.items():
        if isinstance(value, bool):
            kind, content = _TRUE if value else _FALSE, b""
        else:
            kind, encode = _KINDS[type(value)]
            content = encode(value)
        step = number - last
        if step < 16:
            parts.append(step << 4 | kind)
        else:
            parts.append(kind)
            parts += _zigzag(number, 16)
        parts += content
        last = number
    parts.append(0)
    return bytes(parts)


def _list(values: Sequence[Any]) -> bytes:
    kind, encode = _KINDS[type(values[0])]
    count = len(values)
    head = bytes((count << 4 | kind,)) if count <= _SHORT_LIST_MAX else bytes((0xF0 | kind,)) + varint(count)
    return head + b"".join(map(encode, values))


def _zigzag(value: int, bits: int) -> bytes:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise OverflowError(f"{value} has more than {bits} bits")
    return varint(value << 1 if value >= 0 else ~(value << 1))


def _binary(value: bytes) -> bytes:
    return varint(len(value)) + value


_KINDS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    int: (_I32, lambda value: _zigzag(value, 32)),
    I64: (_I64, lambda value: _zigzag(value.value, 64)),
    bytes: (_BINARY, _binary),
    str: (_BINARY, lambda value: _binary(value.encode())),
    list: (_LIST, _list),
    tuple: (_LIST, lru_cache(1024)(_list)),
    dict: (_STRUCT, struct),
    Encoded: (_STRUCT, lambda value: value.content),
}
