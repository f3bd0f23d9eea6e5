"""What decode and the oracle make of the same bytes, held side by side."""

import json
from typing import Any

from tests.oracle.decode import Chunk, decode_chunk

from flow.steps.batches import Decoded, Limits, Lines
from flow.steps.decode import decode

NOW_US = 1_800_000_000_000_000
NARROW = Limits(event_bytes_max=1500, string_bytes_max=40, quantity_max=10**12, meters_per_event_max=4)
WIDE = Limits(quantity_max=2**63 - 1, meters_per_event_max=1024)


def compare(chunk: bytes, limits: Limits, offset: int = 0, late: bool = False) -> Chunk:
    """Decodes a chunk both ways and gives the oracle's answer. Raises AssertionError where the two differ."""
    decoded = decode(Lines("f", offset, chunk, late=late), limits, NOW_US)
    decoded.events.validate(full=True)
    decoded.rejected.validate(full=True)
    expected = decode_chunk(chunk, offset, limits, NOW_US, late)
    assert decoded.events.to_pylist() == expected.events
    rejected = [
        (int(row["source_position"].removeprefix("f:")), row["reason"], row["payload"])
        for row in decoded.rejected.to_pylist()
    ]
    assert rejected == expected.rejected
    apart = {part.amends.kind: said_of(part) for part in decoded.apart if part.amends}
    assert apart == {kind: found for kind, found in expected.apart.items() if found}
    assert sum(part.read for part in decoded.parts) == expected.read
    assert decoded.unknown_fields == expected.unknown_fields
    assert decoded.read == decoded.events.num_rows + decoded.rejected.num_rows
    return expected


def said_of(part: Decoded) -> list[tuple[Any, Any]]:
    """(event, what it says besides) of corrections or late events; the text of the latter must be the canonical one."""
    part.events.validate(full=True)
    assert part.amends is not None
    assert part.read == part.events.num_rows
    texts = part.amends.texts.to_pylist()
    said = [json.loads(text) for text in texts]
    canonical = [json.dumps(one, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for one in said]
    assert texts == canonical
    return list(zip(part.events.to_pylist(), said, strict=True))


def smallest(lines: list[bytes], limits: Limits, late: bool) -> list[bytes]:
    """The fewest of these lines, which differ together, that still do: a form must be learnt before it is met again."""
    kept = list(lines)
    for line in lines:
        fewer = [other for other in kept if other is not line]
        try:
            compare(b"\n".join(fewer), limits, late=late)
        except AssertionError:
            kept = fewer
    return kept
