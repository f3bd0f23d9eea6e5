"""What another price book would have made of the ledger: the same events, rated by two books, added up and compared.

Events are rated by the kernel that a run uses, a batch at a time; what is added up is exact, in integers of the unit
that each amount is counted in. Nothing is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import ConfigError, SourceError
from .kernels import Amounts
from .prices.book import PriceBook
from .schema import DIMENSIONS, LEDGER, REQUESTS
from .sources.ledger import as_events
from .state.ledger import ledger_files, unsealed_files
from .state.ledger_file import LedgerFile
from .steps.amend import rated_rows
from .steps.rate import Rater

METER = "meter"
BY = ("customer", "model", METER)
BATCH_ROWS = 1 << 16
DAY_US = 86_400_000_000

_UNPRICED = 1
_WIDE = pa.decimal256(76, 0)
"""Room for the sum of a batch of 128-bit amounts."""
_COUNT = pa.decimal128(38, 0)
_MERGE_ROWS = 4_000_000
"""Sums that are kept before equal names are merged; some 150 bytes each."""


@dataclass(slots=True)
class Side:
    """What one book makes of some usage."""

    amount_femto: Fraction = Fraction(0)
    unpriced_quantity: int = 0

    def add(self, amount_femto: Fraction, unpriced_quantity: int) -> None:
        self.amount_femto += amount_femto
        self.unpriced_quantity += unpriced_quantity


@dataclass(slots=True)
class Effect:
    """Some usage by two books."""

    quantity: int = 0
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)

    @property
    def difference_femto(self) -> Fraction:
        return self.after.amount_femto - self.before.amount_femto

    @property
    def differs(self) -> bool:
        return self.before != self.after


@dataclass(slots=True)
class Comparison:
    """The ledger of a time, by two books."""

    from_us: int
    before_us: int
    """Event times in [from_us, before_us)."""
    events: int = 0
    total: Effect = field(default_factory=Effect)
    """Of everything; quantities of different meters are not added."""
    effects: dict[tuple[str, ...], Effect] = field(default_factory=dict)
    """What the books make different amounts of, by the values of what was asked for, in that order."""
    unsealed_files: int = 0
    """Files of the ledger that a run still writes: their events are not in here."""


def check_by(names: Sequence[str]) -> tuple[str, ...]:
    """What to tell apart. Raises ConfigError for what an event has not."""
    known = (*DIMENSIONS, METER)
    wrong = [name for name in names if name not in known]
    if wrong or len(set(names)) < len(names):
        raise ConfigError(f"--by: {', '.join(wrong) or 'a name twice'}; known here: {', '.join(known)}")
    return tuple(names)


def compare(
    folder: Path,
    lineage: str,
    books: tuple[PriceBook, PriceBook],
    by: Sequence[str],
    days: int,
    until_us: int | None = None,
    on_events: Callable[[int], None] = lambda events: None,
) -> Comparison:
    """Rates the events of a ledger's last days by two books.

    until_us: the end of these days, exclusive; None: behind the last event of the ledger. `on_events` is told of each
    batch how many it had. Raises ConfigError, SourceError, OverflowStop.
    """
    if books[0].currency != books[1].currency:
        raise ConfigError(
            f"{books[0].currency} and {books[1].currency} cannot be compared: the books differ in currency"
        )
    files = [path for path in ledger_files(folder) if path.name.startswith(f"{lineage}-")]
    before_us = until_us if until_us is not None else max((_times_us(path)[1] for path in files), default=-1) + 1
    found = Comparison(max(before_us - days * DAY_US, 0), before_us)
    found.unsealed_files = sum(path.name.startswith(f"{lineage}-") for path in unsealed_files(folder))
    adder = _Adder(books, by)
    for sign, events in _events(files, found.from_us, before_us):
        adder.add(events, sign)
        if sign > 0:
            found.events += events.num_rows
            on_events(events.num_rows)
    adder.finish(found)
    return found


# ---- The ledger ---------------------------------------------------------------------------------------------------


def _events(files: Sequence[Path], from_us: int, before_us: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """EVENTS with times in [from_us, before_us); those of -1 are what a correction takes away."""
    for path in files:
        first_us, last_us = _times_us(path)
        if last_us < from_us or first_us >= before_us:
            continue
        try:
            with LedgerFile(path) as file:
                for batch in file.batches(BATCH_ROWS):
                    time = batch.column("time").cast(pa.int64())
                    wanted = pc.and_(pc.greater_equal(time, from_us), pc.less(time, before_us))
                    for sign, chosen in rated_rows(batch.filter(wanted)):
                        if chosen.num_rows:
                            yield sign, as_events(chosen, 0)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _times_us(path: Path) -> tuple[int, int]:
    """The first and the last event time of a file, as its footer has them."""
    try:
        metadata = pq.read_metadata(path)
        at = metadata.schema.names.index("time")
        ranges = [metadata.row_group(n).column(at).statistics for n in range(metadata.num_row_groups)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path}: is no file of a ledger: {str(error).splitlines()[0]}") from error
    if any(one is None or not one.has_min_max for one in ranges):
        raise SourceError(f"{path}: its footer does not tell event times; it was not written by this program")
    times = [_us(time) for one in ranges for time in (one.min, one.max)]
    return min(times, default=0), max(times, default=-1)


def _us(time: Any) -> int:
    return int(pa.scalar(time, LEDGER.field("time").type).value)


# ---- Adding up ----------------------------------------------------------------------------------------------------

_SIDES = (0, 1)
_UNITS = ("unit0", "unit1")
_SUMS = ("quantity", "amount0", "amount1", "unpriced0", "unpriced1")


class _Adder:
    """Two books at work on one batch after the other.

    Sums are kept as Arrow tables with numbers for names, and merged now and then; they become Python's when all is
    added up. A *unit* is the meter's name with the denominator that its amounts are counted in, which each book has of
    its own.
    """

    def __init__(self, books: tuple[PriceBook, PriceBook], by: Sequence[str]) -> None:
        self._raters = [Rater(book) for book in books]
        self._by = tuple(by)
        self._dims = [name for name in by if name != METER]
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in (*self._dims, METER)}
        """For each column of names, the number of each name that was met."""
        self._sums: list[pa.Table] = []
        self._rows = self._merged_rows = 0
        """Of `_sums`: all rows, and those of the table that was merged last."""

    def add(self, events: pa.RecordBatch, sign: int) -> None:
        """Rates and adds all rows of EVENTS, or takes them away. Raises OverflowStop, ConfigError."""
        rated = [rater.amounts(events, None, events.num_rows) for rater in self._raters]
        usage = events.column("usage")
        dims = {name: self._numbered(name, events.column(name)) for name in self._dims}
        row_of_item = np.repeat(np.arange(events.num_rows), np.diff(usage.offsets.to_numpy()))
        columns: dict[str, Any] = {name: numbers[row_of_item] for name, numbers in dims.items()}
        columns["quantity"] = quantity = usage.values.field("quantity").cast(_COUNT)
        for side, (amounts, named) in zip(_SIDES, rated, strict=True):
            columns[_UNITS[side]] = self._numbered(METER, named.column("usage").values.field("meter"))
            columns[f"amount{side}"] = _wide(amounts.amounts, len(quantity))
            unpriced = pa.array(np.frombuffer(amounts.flags, np.uint8)[: len(quantity)] == _UNPRICED)
            columns[f"unpriced{side}"] = pc.if_else(unpriced, quantity, pa.scalar(0, _COUNT))
        self._take(columns, sign)
        self._add_requests(dims, events.num_rows, [amounts for amounts, _ in rated], sign)

    def _add_requests(self, dims: Mapping[str, Any], rows: int, amounts: Sequence[Amounts], sign: int) -> None:
        """The implicit meter, where it costs something by one of the books."""
        if not any(np.frombuffer(side.requests, np.uint64)[: 2 * rows].any() for side in amounts):
            return
        nothing = pa.repeat(pa.scalar(0, _COUNT), rows)
        columns: dict[str, Any] = {**dims, "quantity": pa.repeat(pa.scalar(1, _COUNT), rows)}
        number = self._numbers[METER].setdefault(REQUESTS, len(self._numbers[METER]))
        for side in _SIDES:
            columns[_UNITS[side]] = np.full(rows, number, np.int32)
            columns[f"amount{side}"] = _wide(amounts[side].requests, rows)
            columns[f"unpriced{side}"] = nothing
        self._take(columns, sign)

    def _numbered(self, name: str, column: pa.DictionaryArray) -> Any:
        """The number of each value of a column, the same in every batch."""
        numbers = self._numbers[name]
        of_code = [numbers.setdefault(value, len(numbers)) for value in column.dictionary.to_pylist()]
        return np.array(of_code or [0], np.int32)[column.indices.to_numpy()]

    def _take(self, columns: dict[str, Any], sign: int) -> None:
        if sign < 0:
            columns = columns | {name: pc.negate(columns[name]) for name in _SUMS}
        self._sums.append(self._added(pa.table(dict(columns)), [*self._dims, *_UNITS]))
        self._rows += self._sums[-1].num_rows
        # Twice what was left of the last merge, so that many names do not mean a merge with every batch.
        if self._rows > 2 * self._merged_rows + _MERGE_ROWS:
            self._sums = [self._added(pa.concat_tables(self._sums), [*self._dims, *_UNITS])]
            self._rows = self._merged_rows = self._sums[0].num_rows

    @staticmethod
    def _added(table: pa.Table, keys: list[str]) -> pa.Table:
        """The sums of a table for each combination of keys."""
        added = table.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
        return added.select([*keys, *(f"{name}_sum" for name in _SUMS)]).rename_columns([*keys, *_SUMS])

    def finish(self, into: Comparison) -> None:
        """Tells the total and what differs."""
        if not self._sums:
            return
        sums = self._added(pa.concat_tables(self._sums), [*self._dims, *_UNITS])
        names = {name: list(numbers) for name, numbers in self._numbers.items()}
        for row in self._added(sums, list(_UNITS)).to_pylist():
            _add(into.total, row, names[METER])
        into.total.quantity = 0
        for row in sums.filter(self._differing(sums)).to_pylist():
            meter = names[METER][row["unit0"]].partition("/")[0]
            values = {name: names[name][row[name]] for name in self._dims} | {METER: meter}
            key = tuple(values[name] for name in self._by)
            _add(into.effects.setdefault(key, Effect()), row, names[METER])
        into.effects = {key: effect for key, effect in into.effects.items() if effect.differs}

    def _differing(self, sums: pa.Table) -> pa.Array:
        """Which rows are of a combination of names of which some row differs."""
        differs = pc.not_equal(sums["unit0"], sums["unit1"])
        for name in ("amount", "unpriced"):
            differs = pc.or_(differs, pc.not_equal(sums[f"{name}0"], sums[f"{name}1"]))
        combination = np.zeros(sums.num_rows, np.int64)
        for name in self._dims:
            combination = combination * len(self._numbers[name]) + sums[name].to_numpy()
            combination = np.unique(combination, return_inverse=True)[1]  # so that the next product is small
        wanted = np.zeros(combination.max(initial=0) + 1, bool)
        wanted[combination[differs.to_numpy()]] = True
        return pa.array(wanted[combination])


def _add(effect: Effect, row: Mapping[str, Any], units: Sequence[str]) -> None:
    """Adds a row of sums."""
    effect.quantity += int(row["quantity"])
    for side, of_side in zip(_SIDES, (effect.before, effect.after), strict=True):
        _, _, per = units[row[_UNITS[side]]].partition("/")
        of_side.add(Fraction(int(row[f"amount{side}"]), int(per or 1)), int(row[f"unpriced{side}"]))


def _wide(amounts: pa.Buffer, items: int) -> pa.Array:
    """128-bit amounts, with room for their sum."""
    return pa.Array.from_buffers(_COUNT, items, [None, amounts]).cast(_WIDE)
