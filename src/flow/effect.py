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
from .steps.rate import Rater

METER = "meter"
BY = ("customer", "model", METER)
BATCH_ROWS = 1 << 16
DAY_US = 86_400_000_000

_UNPRICED = 1
_WIDE = pa.decimal256(76, 0)
"""Room for the sum of a batch of 128-bit amounts."""
_COUNT = pa.decimal128(38, 0)


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
    effects: dict[tuple[str, ...], Effect] = field(default_factory=dict)
    """By the values of what was asked for, in that order; all of the usage is in one of them."""
    unsealed_files: int = 0
    """Files of the ledger that a run still writes: their events are not in here."""

    def total(self) -> Effect:
        """Amounts of everything; quantities of different meters are not added."""
        found = Effect()
        for effect in self.effects.values():
            found.before.add(effect.before.amount_femto, effect.before.unpriced_quantity)
            found.after.add(effect.after.amount_femto, effect.after.unpriced_quantity)
        return found


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
    adder = _Adder(books, by, found)
    for events in _events(files, found.from_us, before_us):
        adder.add(events)
        on_events(events.num_rows)
    return found


# ---- The ledger ---------------------------------------------------------------------------------------------------


def _events(files: Sequence[Path], from_us: int, before_us: int) -> Iterator[pa.RecordBatch]:
    """EVENTS with times in [from_us, before_us)."""
    for path in files:
        first_us, last_us = _times_us(path)
        if last_us < from_us or first_us >= before_us:
            continue
        try:
            with pq.ParquetFile(path) as file:
                if not file.schema_arrow.equals(LEDGER):
                    raise SourceError(f"{path}: its columns are not those of a ledger; restore it from a backup")
                for batch in file.iter_batches(BATCH_ROWS, columns=LEDGER.names, use_threads=False):
                    time = batch.column("time").cast(pa.int64())
                    wanted = pc.and_(pc.greater_equal(time, from_us), pc.less(time, before_us))
                    chosen = batch.filter(wanted)
                    if chosen.num_rows:
                        yield as_events(chosen, 0)
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


class _Adder:
    """Two books at work on one batch after the other."""

    def __init__(self, books: tuple[PriceBook, PriceBook], by: Sequence[str], into: Comparison) -> None:
        self._raters = [Rater(book) for book in books]
        self._by = tuple(by)
        self._dims = [name for name in by if name != METER]
        self._into = into

    def add(self, events: pa.RecordBatch) -> None:
        """Rates and adds all rows of EVENTS. Raises OverflowStop, ConfigError."""
        rated = [rater.amounts(events, None, events.num_rows) for rater in self._raters]
        self._into.events += events.num_rows
        usage = events.column("usage")
        row_of_item = np.repeat(np.arange(events.num_rows), np.diff(usage.offsets.to_numpy()))
        columns: dict[str, Any] = {name: _codes(events.column(name))[row_of_item] for name in self._dims}
        columns["quantity"] = usage.values.field("quantity").cast(_COUNT)
        names: list[list[str]] = []
        for side, (amounts, named) in enumerate(rated):
            meter = named.column("usage").values.field("meter")
            names.append(meter.dictionary.to_pylist())
            columns[f"meter{side}"] = meter.indices
            columns[f"amount{side}"] = _wide(amounts.amounts, len(meter))
            unpriced = np.frombuffer(amounts.flags, np.uint8)[: len(meter)] == _UNPRICED
            columns[f"unpriced{side}"] = pc.if_else(pa.array(unpriced), columns["quantity"], pa.scalar(0, _COUNT))
        for row in self._grouped(columns, ["meter0", "meter1"]):
            units = [names[side][row[f"meter{side}"]].partition("/") for side in (0, 1)]
            amounts_femto = [Fraction(int(row[f"amount{n}_sum"]), int(per or 1)) for n, (_, _, per) in enumerate(units)]
            unpriced_counts = [int(row[f"unpriced{side}_sum"]) for side in (0, 1)]
            self._take(events, row, units[0][0], int(row["quantity_sum"]), amounts_femto, unpriced_counts)
        self._add_requests(events, [amounts for amounts, _ in rated])

    def _add_requests(self, events: pa.RecordBatch, amounts: Sequence[Amounts]) -> None:
        """The implicit meter, where it costs something by one of the books."""
        of_requests = [np.frombuffer(side.requests, np.uint64)[: 2 * events.num_rows] for side in amounts]
        if not any(side.any() for side in of_requests):
            return
        columns: dict[str, Any] = {name: _codes(events.column(name)) for name in self._dims}
        columns["quantity"] = pa.repeat(pa.scalar(1, _COUNT), events.num_rows)
        for n, side in enumerate(amounts):
            columns[f"amount{n}"] = _wide(side.requests, events.num_rows)
        for row in self._grouped(columns, []):
            amounts_femto = [Fraction(int(row[f"amount{side}_sum"])) for side in (0, 1)]
            self._take(events, row, REQUESTS, int(row["quantity_sum"]), amounts_femto, [0, 0])

    def _grouped(self, columns: Mapping[str, Any], units: list[str]) -> list[dict[str, Any]]:
        """Sums of all columns but the keys, for each combination of keys."""
        keys = [*self._dims, *units]
        table = pa.table(dict(columns))
        sums = [(name, "sum") for name in columns if name not in keys]
        return list(table.group_by(keys, use_threads=False).aggregate(sums).to_pylist())

    def _take(
        self,
        events: pa.RecordBatch,
        row: Mapping[str, Any],
        meter: str,
        quantity: int,
        amounts_femto: Sequence[Fraction],
        unpriced: Sequence[int],
    ) -> None:
        values = {name: events.column(name).dictionary[row[name]].as_py() for name in self._dims} | {METER: meter}
        effect = self._into.effects.setdefault(tuple(values[name] for name in self._by), Effect())
        effect.quantity += quantity
        effect.before.add(amounts_femto[0], unpriced[0])
        effect.after.add(amounts_femto[1], unpriced[1])


def _codes(column: pa.DictionaryArray) -> Any:
    return column.indices.to_numpy()


def _wide(amounts: pa.Buffer, items: int) -> pa.Array:
    """128-bit amounts, with room for their sum."""
    return pa.Array.from_buffers(_COUNT, items, [None, amounts]).cast(_WIDE)
