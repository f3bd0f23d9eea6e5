"""What changes a bill later, as events: corrections, and events that were too late and are billed now.

A correction is rated as what it makes of what it corrects: two usages, *before* and *after*, each as an event would
have it, at the same time and with the same dimensions. Its amount is the difference of the two amounts, so that tiers,
packages and factors come out as if the event had been right at first (docs/decisions/017-corrections.md).

These events are few, and are handled one by one; nothing of this is on the way of other events.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import floor
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..kernels import Amounts, Identity, bound_identity, identify
from ..schema import EVENTS, LEDGER, PER_OF_ALL, REQUESTS, meter_and_per
from .batches import Amends
from .wide import halves

CORRECTION: Literal["correction"] = "correction"
LATE: Literal["late"] = "late"

Usage = dict[str, int]


def amends_text(kind: str, said: Mapping[str, object]) -> str:
    """What an `Amends` says of an event."""
    return canonical({"kind": kind, **said})


def canonical(said: Mapping[str, object]) -> str:
    """The one JSON text of an object, whatever the order of its fields: it is hashed."""
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def usage_before_and_after(change: Mapping[str, int], before: Mapping[str, int] | None) -> tuple[Usage, Usage]:
    """The two usages whose difference a correction is, without `requests`.

    With `before` unknown: what it takes away, and what it adds. What is before is also after, if only with 0.
    """
    changed = {meter: quantity for meter, quantity in change.items() if meter != REQUESTS}
    if before is None:
        before = {meter: -quantity for meter, quantity in changed.items() if quantity < 0}
    meters = [*before, *(meter for meter in changed if meter not in before)]
    return dict(before), {meter: before.get(meter, 0) + changed.get(meter, 0) for meter in meters}


def starts_window(grain: str, start_us: int, time_us: int) -> bool:
    """Whether a window of this grain begins at `start_us`, and has `time_us` in it."""
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start_us)
    lengths = {
        "minute": timedelta(minutes=1),
        "hour": timedelta(hours=1),
        "day": timedelta(days=1),
        "week": timedelta(days=7),
        "month": (start.replace(day=1) + timedelta(days=31)).replace(day=1) - start,
    }
    if grain not in lengths:
        return False
    begins = start.second == start.microsecond == 0
    begins &= grain == "minute" or start.minute == 0
    begins &= grain in ("minute", "hour") or start.hour == 0
    begins &= (grain != "week" or start.weekday() == 0) and (grain != "month" or start.day == 1)
    return begins and 0 <= time_us - start_us < lengths[grain] // timedelta(microseconds=1)


# ---- Columns ------------------------------------------------------------------------------------------------------


def with_usage(events: pa.RecordBatch, usages: Sequence[Mapping[str, int]]) -> pa.RecordBatch:
    """The same events with other usage."""
    items = [[{"meter": meter, "quantity": quantity} for meter, quantity in usage.items()] for usage in usages]
    usage = pa.array(items, EVENTS.field("usage").type)
    columns = [usage if name == "usage" else events.column(name) for name in EVENTS.names]
    return pa.RecordBatch.from_arrays(columns, schema=EVENTS)


def usages_of(events: pa.RecordBatch) -> list[Usage]:
    """The usage of each of EVENTS."""
    return [{item["meter"]: item["quantity"] for item in items} for items in events.column("usage").to_pylist()]


def identify_amending(events: pa.RecordBatch, amends: Amends | None) -> Identity:
    """A late event is the event that it always was; the payload of a correction is also what it says besides."""
    identity = identify(events)
    return bound_identity(identity, amends.texts) if amends is not None and amends.kind == CORRECTION else identity


def picked_amends(amends: Amends | None, rows: pa.Array) -> Amends | None:
    """Those of some rows."""
    return None if amends is None else Amends(amends.kind, amends.texts.take(rows))


def befores_and_afters(events: pa.RecordBatch, amends: Amends) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Corrections as two batches of events, row by row: what is taken away, with requests, and what comes in its
    place."""
    befores, afters = [], []
    for change, text in zip(usages_of(events), amends.texts.to_pylist(), strict=True):
        before, after = usage_before_and_after(change, json.loads(text)["corrects"].get("usage"))
        if requests := -change.get(REQUESTS, 0):
            before[REQUESTS] = requests
        befores.append(before)
        afters.append(after)
    return with_usage(events, befores), with_usage(events, afters)


def negated(events: pa.RecordBatch, amounts: Amounts) -> tuple[pa.RecordBatch, Amounts]:
    """The same usage and its amounts, below 0."""
    usage = [{meter: -quantity for meter, quantity in of_event.items()} for of_event in usages_of(events)]
    wide = [-number for number in wide_numbers(amounts.amounts)]
    return with_usage(events, usage), amounts._replace(amounts=_wide_buffer(wide))


def without_requests(amounts: Amounts) -> Amounts:
    """The same where no request is counted."""
    return amounts._replace(requests=pa.py_buffer(bytes(amounts.requests.size)))


def wide_numbers(buffer: pa.Buffer) -> list[int]:
    """The 128-bit integers in a buffer."""
    content = bytes(buffer)
    return [int.from_bytes(content[at : at + 16], "little", signed=True) for at in range(0, len(content), 16)]


def _wide_buffer(numbers: Sequence[int]) -> pa.Buffer:
    return pa.py_buffer(b"".join(number.to_bytes(16, "little", signed=True) for number in numbers))


def _wide_column(kind: pa.DataType, wide: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(kind, wide.size // 16, [None, wide])


# ---- Rows of the store --------------------------------------------------------------------------------------------


def without_events(batch: pa.RecordBatch, *, keep_digest: bool = False) -> pa.RecordBatch:
    """A row of the combiner counts the deltas in it as events: they are none."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    rows = batch.num_rows
    meters = batch.column("meters")
    begins = pc.starts_with(meters.dictionary, f"{REQUESTS},").to_numpy(zero_copy_only=False)
    columns["events"] = pa.array(np.zeros(rows, np.uint64))
    if not keep_digest:
        columns["digest"] = _wide_column(pa.binary(16), pa.py_buffer(bytes(16 * rows)))
    quantity = halves(batch.column("q0").buffers()[1], rows)
    # Below 0 they are requests that are taken back, which may come first in a row as well, behind three other meters.
    counts = begins[meters.indices.to_numpy()] & (quantity[:, 1].view(np.int64) >= 0)
    columns["q0"] = _wide_column(pa.binary(16), pa.py_buffer(np.where(counts[:, None], np.uint64(0), quantity)))
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


class Change(NamedTuple):
    """What a correction, or a late event, does to one meter of its window: a row of the table `corrections`."""

    customer: str
    window_start: int  # seconds
    meter: str
    id: str
    kind: str
    reason: str
    author: str
    corrects: str
    quantity: int
    unpriced_quantity: int
    amount_femto: int
    amount_remainder: int
    """What `amount_femto` is short of, in parts of which PER_OF_ALL are one."""


def changes(events: pa.RecordBatch, amends: Amends, rows: Sequence[int], sides: Sequence["Side"]) -> list[Change]:
    """What the chosen rows of a batch change, meter by meter."""
    found = []
    for row in rows:
        event, said = events.slice(row, 1).to_pylist()[0], json.loads(amends.texts[row].as_py())
        meters: dict[str, list[Fraction | int]] = {}
        for side in sides:
            for meter, *numbers in side.of_row(row):
                sums = meters.setdefault(meter, [0, 0, 0])
                for n, number in enumerate(numbers):
                    sums[n] += number
        window_start = event["event_time_us"] // 60_000_000 * 60
        named = "" if "corrects" not in said else canonical(said["corrects"])
        for meter, (quantity, unpriced, amount) in meters.items():
            if quantity or unpriced or amount:
                told = (said["reason"], said["author"], named)
                whole = floor(amount)
                sums_of = (int(quantity), int(unpriced), whole, int((amount - whole) * PER_OF_ALL))
                found.append(Change(event["customer"], window_start, meter, event["id"], amends.kind, *told, *sums_of))
    return found


class Side(NamedTuple):
    """Rated usage; `is_event`: each row is a request too."""

    events: pa.RecordBatch
    amounts: Amounts
    is_event: bool

    def of_row(self, row: int) -> Iterator[tuple[str, int, int, Fraction | int]]:
        """(meter, quantity, unpriced quantity, amount in 10^-15 currency units)."""
        usage = self.events.column("usage")
        first, end = usage.offsets[row].as_py(), usage.offsets[row + 1].as_py()
        amounts = wide_numbers(self.amounts.amounts.slice(16 * first, 16 * (end - first)))
        flags = bytes(self.amounts.flags.slice(first, end - first))
        items = usage.values.slice(first, end - first).to_pylist()
        for item, amount, flag in zip(items, amounts, flags, strict=True):
            meter, per = meter_and_per(item["meter"])
            yield meter, item["quantity"], item["quantity"] if flag == 1 else 0, Fraction(amount, per)
        if self.is_event:
            yield REQUESTS, 1, 0, wide_numbers(self.amounts.requests.slice(16 * row, 16))[0]


def change_rows(found: Sequence[Change], currency: str, created: datetime) -> pa.Table:
    """Rows of the table `corrections`."""
    columns: dict[str, Any] = {
        name: pa.array([getattr(change, name) for change in found], kind)
        for name, kind in [
            ("customer", pa.string()),
            ("window_start", pa.uint32()),
            *[(name, pa.string()) for name in ("meter", "id", "kind", "reason", "author", "corrects")],
        ]
    }
    for name in ("quantity", "unpriced_quantity", "amount_remainder"):
        columns[name] = _wide_column(pa.binary(16), _wide_buffer([getattr(change, name) for change in found]))
    amounts = _wide_buffer([change.amount_femto for change in found])
    columns["amount"] = _wide_column(pa.decimal128(38, 15), amounts)
    columns["currency"] = pa.repeat(pa.scalar(currency), len(found))
    columns |= {name: pa.repeat(pa.scalar(""), len(found)) for name in ("book_before", "book_after")}
    columns["created"] = pa.array([created] * len(found), pa.timestamp("us", tz="UTC"))
    return pa.table(columns)


# ---- The ledger ---------------------------------------------------------------------------------------------------


def kinds_in(batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """Of ledger rows: each kind ("" for plain events) that is there, and a mask of its rows."""
    if "amends" not in batch.schema.names or batch.column("amends").null_count == batch.num_rows:
        yield "", np.ones(batch.num_rows, bool)
        return
    texts = batch.column("amends").to_pylist()
    kinds = np.array(["" if text is None else json.loads(text)["kind"] for text in texts])
    for kind in ("", CORRECTION, LATE):
        if (kinds == kind).any():
            yield kind, kinds == kind


def rated_rows(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Ledger rows as plain ones, for what rates them anew: a correction is what comes (1) and what is taken away (-1).

    All columns of the ledger that are there but `amends`.
    """
    if "amends" not in batch.schema.names:
        yield 1, batch
        return
    plain = batch.drop_columns(["amends"])
    for kind, rows in kinds_in(batch):
        chosen = plain.filter(pa.array(rows))
        if kind != CORRECTION:
            yield 1, chosen
            continue
        befores, afters = [], []
        changes = [dict(usage) for usage in chosen.column("usage").to_pylist()]
        for change, text in zip(changes, batch.column("amends").filter(pa.array(rows)).to_pylist(), strict=True):
            before, after = usage_before_and_after(change, json.loads(text)["corrects"].get("usage"))
            befores.append(before | ({REQUESTS: -change[REQUESTS]} if change.get(REQUESTS) else {}))
            afters.append(after)
        place = chosen.schema.get_field_index("usage")
        for sign, usages in ((1, afters), (-1, befores)):
            usage = pa.array([list(usage.items()) for usage in usages], LEDGER.field("usage").type)
            yield sign, chosen.set_column(place, "usage", usage)
