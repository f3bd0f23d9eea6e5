"""What has become of events that came by the inbox: a row of `inbox_events` for each of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from .batches import source_positions
from .deduplicate import Judged

ORIGIN = "inbox/"
"""How the origin of a batch that came by the inbox begins, and of no other: files have whole paths, and a topic's name
has no slash."""


def inbox_rows(judged: Judged) -> Iterator[dict[str, Any]]:
    """The rows, but for `seen_at`, of the events of a batch, whatever their outcome; none if it came another way."""
    routed, verdicts = judged.routed, judged.verdicts
    if not routed.origin.startswith(ORIGIN):
        return
    outcomes = np.full(routed.events.num_rows, "", dtype=object)  # "": of another shard
    outcomes[slice(None) if routed.rows is None else _numbers(routed.rows, routed.count)] = "duplicate"
    for outcome in ("accepted", "conflicting", "late"):
        outcomes[_numbers(getattr(verdicts, outcome), getattr(verdicts, f"{outcome}_count"))] = outcome
    mine = pa.array(np.flatnonzero(outcomes))
    events = routed.events.select(["source", "id", "position"]).take(mine)
    positions = source_positions(routed.origin, events.column("position"), routed.messages).to_pylist()
    for event, position, outcome in zip(events.to_pylist(), positions, outcomes[mine], strict=True):
        yield _row(position, str(outcome), "", event["source"], event["id"])
    for rejected in routed.rejected.select(["source_position", "reason"]).to_pylist():
        yield _row(rejected["source_position"], "rejected", rejected["reason"], "", "")


def _numbers(rows: pa.Buffer, count: int) -> Any:
    return np.frombuffer(rows, np.uint32, count)


def _row(source_position: str, outcome: str, reason: str, source: str, id_: str) -> dict[str, Any]:
    origin, _, byte = source_position.rpartition(":")
    file = origin.removeprefix(ORIGIN)
    return {"file": file, "position": int(byte), "outcome": outcome, "reason": reason, "source": source, "id": id_}
