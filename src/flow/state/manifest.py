"""Snapshots as bytes: magic, version, checksum, then JSON. Never a pickled class: code can be renamed and moved."""

import json
import struct
import zlib
from typing import Any

from ..errors import StateError

_MAGIC = b"TLYF"
_HEADER = struct.Struct("<4sHHI")  # magic, version, length of the kind, CRC-32 of kind and body
VERSION = 1


class DamagedManifest(StateError):
    """A manifest cannot be read; the message says which, and whoever knows the file it was kept in adds that."""


def seal(kind: str, body: dict[str, Any]) -> bytes:
    """The bytes of a manifest; `kind` says what it describes."""
    name = kind.encode()
    content = name + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return _HEADER.pack(_MAGIC, VERSION, len(name), zlib.crc32(content)) + content


def unseal(sealed: bytes, kind: str, where: str) -> dict[str, Any]:
    """The body of a manifest. Raises DamagedManifest, naming `where`, if it is not a whole manifest of this kind."""
    if len(sealed) < _HEADER.size:
        raise DamagedManifest(f"{where}: too short for a manifest; restore it from a backup, or start a new lineage")
    magic, version, name_length, checksum = _HEADER.unpack_from(sealed)
    content = sealed[_HEADER.size :]
    if magic != _MAGIC or zlib.crc32(content) != checksum:
        raise DamagedManifest(f"{where}: damaged (checksum); restore it from a backup, or start a new lineage")
    if version > VERSION:
        raise DamagedManifest(f"{where}: written by a newer Tallyflow (format {version}, this one knows {VERSION})")
    if content[:name_length] != kind.encode():
        raise DamagedManifest(f"{where}: a manifest of {content[:name_length].decode()!r}, expected {kind!r}")
    body: dict[str, Any] = json.loads(content[name_length:])
    return body
