"""The examples of a rule book, tried by the kernel that a run uses: each on its own rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ..schema import EVENTS, USAGE
from .book import RuleBook
from .checker import Checker, plain_events
from .rule import COLUMNS, Example


@dataclass(frozen=True, slots=True)
class FailedExample:
    """An example that does not come out."""

    line: int
    rule: str
    message: str


def failed_examples(book: RuleBook) -> list[FailedExample]:
    """Those that do not come out, in the order of their lines."""
    found = []
    for rule in book.rules:
        checker, events = Checker([rule]), _batch(rule.examples)
        for row, example in enumerate(rule.examples):
            fails = bool(checker.failures(events.slice(row, 1).take([0]), example.read_us))
            if fails == example.passes:
                (event,) = plain_events(events, [row])
                seen = f"fails: {rule.check.seen(event, example.read_us)}" if fails else "passes, and must fail"
                found.append(FailedExample(example.line, rule.id, seen))
    return sorted(found, key=lambda example: example.line)


def _batch(examples: Sequence[Example]) -> pa.RecordBatch:
    """EVENTS of some examples, whose ids are their numbers."""
    events = [example.event for example in examples]
    usage = [[{"meter": name, "quantity": n} for name, n in event["usage"].items()] for event in events]
    plain = pa.struct({"meter": pa.string(), "quantity": pa.int64()})
    items = pa.array([item for of_event in usage for item in of_event], plain)
    offsets = [0]
    for of_event in usage:
        offsets.append(offsets[-1] + len(of_event))
    coded = [items.field("meter").dictionary_encode(), items.field("quantity")]
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(coded, fields=list(USAGE.value_type)), type=USAGE
    )
    columns = {name: pa.array([event[name] for event in events]).dictionary_encode() for name in COLUMNS}
    columns |= {
        "id": pa.array([str(n) for n in range(len(events))]),
        "event_time_us": pa.array([event["event_time_us"] for event in events], pa.int64()),
        "usage": lists,
        "position": pa.array(range(len(events)), pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)
