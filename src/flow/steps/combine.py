"""The block of one writer and epoch: rated events in, the rows of every table of the store out."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BalanceError
from ..kernels import SLOTS, Combiner, Grain
from ..schema import DIMENSIONS, REQUESTS
from .batches import source_positions
from .deduplicate import Judged
from .rate import Rated

OUTCOMES = ("read", "accepted", "duplicate", "conflicting", "rejected", "late")
_NONE = pa.scalar(0, pa.int32())
_KEY_DIMENSIONS = [name for name in DIMENSIONS if name != "customer"]

NOT_IN_DAYS = ("project", "model")
"""Dimensions that the day rollup adds up over; `_core/hash.pyx` leaves them out of the coarse hash."""

Tables = Iterator[tuple[str, pa.Table]]
MeterTotals = dict[str, list[int]]
"""[quantity, amount in femto-units, unpriced quantity] by meter."""


class BlockBuilder:
    """Adds batches up until the block is cut.

    `keys_max`: keys remembered; beyond, the table of keys starts anew with the next block (and tells the store again).
    """

    def __init__(self, currency: str, keys_max: int, rows_per_table_max: int = 1_000_000) -> None:
        self._currency = currency
        self._keys_max = keys_max
        self._rows_max = rows_per_table_max
        self._combiner = Combiner(currency)
        self._names: dict[str, dict[str, int]] = {name: {} for name in DIMENSIONS}  # a code for each value
        self._key_codes: list[list[pa.Array]] = []  # codes of the keys that are new in this block, per batch
        self._told = 0  # keys that blocks before this one have told the store
        self._coarse_told = 0  # and keys of the day rollup
        self._counts: dict[str, Counter[str]] = {}
        self.meters: MeterTotals = {}
        """What the last block that was cut adds up to."""
        self._rejected: list[pa.RecordBatch] = []
        self._conflicting: list[dict[str, Any]] = []
        self._late: list[dict[str, Any]] = []

    def add(self, rated: Rated) -> None:
        """Adds one batch. Raises OverflowStop, BalanceError."""
        judged = rated.judged
        routed = judged.routed
        self._count(judged)
        rows, count = judged.accepted
        if count:
            first_key = self._combiner.key_count
            new_rows, new = self._combiner.add(routed.events, routed.identity, rated.amounts, rows, count)
            if new:
                self._learn_keys(routed.events, new_rows, new, first_key)
        if routed.rejected.num_rows:
            self._rejected.append(routed.rejected)
        if judged.verdicts.conflicting_count:
            picked = _picked(judged.verdicts.conflicting, judged.verdicts.conflicting_count)
            fingerprints = pa.Array.from_buffers(
                pa.binary(16), routed.events.num_rows, [None, routed.identity.fingerprint]
            ).take(picked)
            for row, fingerprint in zip(_described(routed, picked), fingerprints, strict=True):
                self._conflicting.append({**row, "fingerprint": fingerprint.as_py()})
        if judged.verdicts.late_count:
            watermark = _instant(judged.watermark_us)
            for row in _described(routed, _picked(judged.verdicts.late, judged.verdicts.late_count)):
                self._late.append({**row, "watermark": watermark})

    def _count(self, judged: Judged) -> None:
        routed, verdicts = judged.routed, judged.verdicts
        told = {
            "read": routed.read,
            "accepted": verdicts.accepted_count,
            "duplicate": verdicts.duplicate_count,
            "conflicting": verdicts.conflicting_count,
            "rejected": routed.rejected.num_rows,
            "late": verdicts.late_count,
        }
        if told["read"] != sum(told[name] for name in OUTCOMES[1:]):
            raise BalanceError(f"{routed.origin}, {routed.shard}: the balance of a batch does not hold: {told}")
        if told["read"]:
            self._counts.setdefault(routed.shard, Counter()).update(told)

    def _learn_keys(self, events: pa.RecordBatch, new_rows: pa.Buffer, new: int, first_key: int) -> None:
        picked = _picked(new_rows, new)
        codes = [self._codes(name, events.column(name), picked) for name in DIMENSIONS]
        self._key_codes.append(codes)
        self._combiner.name_customers(first_key, codes[DIMENSIONS.index("customer")])

    def _codes(self, dimension: str, column: pa.DictionaryArray, picked: pa.UInt32Array) -> pa.Int32Array:
        """This builder's codes of the picked rows' values; only values that are picked get one."""
        used = column.indices.take(picked).dictionary_encode()
        codes = self._names[dimension]
        values = column.dictionary.take(used.dictionary).to_pylist()
        return pa.array([codes.setdefault(value, len(codes)) for value in values], pa.int32()).take(used.indices)

    @property
    def empty(self) -> bool:
        """Whether nothing at all has come in since the last block."""
        return not self._counts

    def counts(self) -> Counter[str]:
        """The balance of the block so far, over all shards."""
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return total

    def cut(self, lineage: str, writer: str, block: int, seen_at_us: int) -> Tables:
        """The rows of the block, table by table in the order in which they are to be published; call `clear` behind it.

        Raises OverflowStop.
        """
        minute_rows, day_rows = self._combiner.cut()
        self.meters = self._meter_totals()
        yield from self._keys()
        ranks = _ranks(self._names["customer"])
        customers = pa.array(list(self._names["customer"]), pa.string())
        for table, day, rows in (("rollup_minute", False, minute_rows), ("rollup_day", True, day_rows)):
            for grain in self._combiner.grain(day, rows, ranks, self._rows_max):
                yield table, _rollup(grain, customers)
        seen_at = _instant(seen_at_us)
        if self._rejected:
            yield "rejected_events", _rejected(pa.Table.from_batches(self._rejected), seen_at)
        if self._conflicting:
            yield "conflicting_events", _rows(self._conflicting, seen_at)
        if self._late:
            yield "late_events", _rows(self._late, seen_at)
        yield (
            "pipeline_balance",
            pa.Table.from_pylist(
                [
                    {"lineage": lineage, "writer": writer, "block": block, "shard": shard, **counts}
                    for shard, counts in sorted(self._counts.items())
                ]
            ),
        )

    def _meter_totals(self) -> MeterTotals:
        totals: MeterTotals = {}
        for meters, events, quantities, amounts in self._combiner.block_totals():
            slots = zip([(REQUESTS, False), *meters], [events, *quantities], amounts, strict=True)
            for (name, unpriced), quantity, amount in slots:
                add_totals(totals, {name: [quantity, amount, quantity if unpriced else 0]})
        return totals

    def clear(self) -> None:
        """The next block begins."""
        self._combiner.clear()
        self._told = self._combiner.key_count
        self._coarse_told = self._combiner.coarse_count
        self._key_codes, self._rejected, self._conflicting, self._late = [], [], [], []
        self._counts = {}
        if self._told > self._keys_max:
            self._combiner.forget_keys()
            self._names = {name: {} for name in DIMENSIONS}
            self._told = self._coarse_told = 0

    def _keys(self) -> Tables:
        rows = []
        for coarse, first in ((False, self._told), (True, self._coarse_told)):
            numbers, keys, places, count = self._combiner.new_keys(coarse, first)
            if count:
                rows.append(self._key_rows(coarse, numbers, keys, places, count))
        if rows:
            yield "keys", pa.concat_tables(rows).unify_dictionaries()

    def _key_rows(self, coarse: bool, numbers: pa.Buffer, keys: pa.Buffer, places: pa.Buffer, count: int) -> pa.Table:
        """Rows of `keys`; those of the day rollup (`coarse`) have neither project nor model."""
        slots = self._combiner.slot_rows()
        place = pa.Array.from_buffers(pa.int32(), count, [None, places])
        first = pa.scalar(self._told, pa.int32())
        within = pc.subtract(pa.Array.from_buffers(pa.int32(), count, [None, numbers]), first)
        dims = {}
        for n, name in enumerate(DIMENSIONS):
            codes = pa.concat_arrays([of_batch[n] for of_batch in self._key_codes]).take(within)
            names = pa.array(list(self._names[name]), pa.string())
            if coarse and name in NOT_IN_DAYS:
                codes, names = pc.multiply(place, _NONE), pa.array([""])
            dims[name] = pa.DictionaryArray.from_arrays(codes, names, safe=False)
        columns = {
            "customer": dims["customer"],
            "key": pa.Array.from_buffers(pa.binary(16), count, [None, keys]),
            **{name: dims[name] for name in _KEY_DIMENSIONS},
            "currency": pa.DictionaryArray.from_arrays(pc.multiply(place, _NONE), pa.array([self._currency])),
            "meters": pa.array([names for names, _ in slots], pa.list_(pa.string())).take(place),
            "unpriced": pa.array([mask for _, mask in slots], pa.uint8()).take(place),
        }
        return pa.table(columns)


def add_totals(totals: MeterTotals, more: MeterTotals) -> None:
    """Adds `more` to `totals`."""
    for name, numbers in more.items():
        sums = totals.setdefault(name, [0, 0, 0])
        for n, number in enumerate(numbers):
            sums[n] += number


def _ranks(codes: dict[str, int]) -> pa.Int32Array:
    """The place of each code in the order of the names' bytes."""
    ranks = [0] * len(codes)
    for rank, name in enumerate(sorted(codes, key=str.encode)):
        ranks[codes[name]] = rank
    return pa.array(ranks, pa.int32())


def _rollup(grain: Grain, customers: pa.StringArray) -> pa.Table:
    def wide(buffer: pa.Buffer, kind: pa.DataType) -> pa.Array:
        return pa.Array.from_buffers(kind, grain.rows, [None, buffer])

    codes = wide(grain.customer, pa.int32())
    columns = {
        "customer": pa.DictionaryArray.from_arrays(codes, customers),
        "window_start": wide(grain.window_start, pa.uint32()),
        "key": wide(grain.key, pa.binary(16)),
        "events": wide(grain.events, pa.uint64()),
        "digest": wide(grain.digest, pa.binary(16)),
        **{f"q{n}": wide(grain.quantities[n], pa.binary(16)) for n in range(SLOTS)},
        **{f"a{n}": wide(grain.amounts[n], pa.decimal128(38, 15)) for n in range(SLOTS)},
    }
    return pa.table(columns)


def _instant(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)


def _picked(rows: pa.Buffer, count: int) -> pa.UInt32Array:
    return pa.Array.from_buffers(pa.uint32(), count, [None, rows])


def _described(routed: Any, picked: pa.UInt32Array) -> Iterator[dict[str, Any]]:
    """Rows of a batch, one dict each, with the event as canonical JSON; for the few that are set aside."""
    events = routed.events.take(picked)
    positions = source_positions(routed.origin, events.column("position"), routed.messages).to_pylist()
    for event, position in zip(events.to_pylist(), positions, strict=True):
        usage = {item["meter"]: item["quantity"] for item in event["usage"]}
        event_time = _instant(event["event_time_us"])
        payload = {"id": event["id"], "source": event["source"], "time": event_time.isoformat().replace("+00:00", "Z")}
        payload |= {name: event[name] for name in DIMENSIONS} | {"usage": dict(sorted(usage.items()))}
        yield {
            "source_position": position,
            "source": event["source"],
            "id": event["id"],
            "event_time": event_time,
            "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
        }


def _rows(rows: list[dict[str, Any]], seen_at: datetime) -> pa.Table:
    return pa.Table.from_pylist([{"seen_at": seen_at, **row} for row in rows])


def _rejected(rejected: pa.Table, seen_at: datetime) -> pa.Table:
    when = pa.array([seen_at] * rejected.num_rows, pa.timestamp("us", tz="UTC"))
    return rejected.add_column(0, "seen_at", when)
