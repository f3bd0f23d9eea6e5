"""What the rollups must say of synthetic events, added up in NumPy from the events themselves.

Identity, payload hash and digest are computed here anew from their definition (`flow/oracle/hashing.py`), a million
events at a time; no kernel has a part in it. An event counts if it is the first of its (source, id).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flow.generate import METERS, Synthetic, batches
from flow.oracle.hashing import dims_hash, name_hash, words
from flow.oracle.rollup import Rates
from flow.schema import DIMENSIONS, REQUESTS

Words = NDArray[np.uint64]
Wide = tuple[Words, Words]
"""128-bit integers: their low and their high 64 bits."""
Key = tuple[int, tuple[str, ...], str]
"""Window start (s since 1970), the values of DIMENSIONS, meter."""

_BATCH_ROWS = 1 << 20
_LOW = np.uint64(0xFFFFFFFF)
_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)


@dataclass
class Cell:
    """What is said of one minute, combination of dimensions and meter."""

    quantity: int = 0
    events: int = 0
    digest: int = 0
    """Modulo 2^128."""
    amount_femto: int = 0

    def add(self, quantity: int, events: int, digest: int) -> None:
        self.quantity += quantity
        self.events += events
        self.digest = (self.digest + digest) % 2**128


Cells = dict[Key, Cell]


# ---- Hashes --------------------------------------------------------------------------------------------------------


def _rotate(word: Words, bits: int) -> Words:
    return word << np.uint64(bits) | word >> np.uint64(64 - bits)


def _fmix(word: Words) -> Words:
    word = (word ^ word >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    word = (word ^ word >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ word >> np.uint64(33)


def _murmur(blocks: list[Wide], tail: Words | None, length: int, seed: Wide) -> Wide:
    """MurmurHash3 x64 128 of whole blocks and at most eight bytes more, a text a row."""
    h1, h2 = seed
    for k1, k2 in blocks:
        h1 = h1 ^ _rotate(k1 * _C1, 31) * _C2
        h1 = (_rotate(h1, 27) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
        h2 = h2 ^ _rotate(k2 * _C2, 33) * _C1
        h2 = (_rotate(h2, 31) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
    if tail is not None:
        h1 = h1 ^ _rotate(tail * _C1, 31) * _C2
    h1, h2 = h1 ^ np.uint64(length), h2 ^ np.uint64(length)
    h1 = h1 + h2
    h2 = h2 + h1
    h1, h2 = _fmix(h1), _fmix(h2)
    h1 = h1 + h2
    return h1, h2 + h1


def _of_each(column: pa.DictionaryArray, hashes: list[int]) -> Wide:
    """For each row the hash of its value."""
    codes = column.indices.to_numpy()
    low, high = zip(*(words(one) for one in hashes), strict=True)
    return np.array(low, np.uint64)[codes], np.array(high, np.uint64)[codes]


def fingerprints(events: pa.RecordBatch) -> Wide:
    """The identity of each event; all ids are of 36 characters."""
    source = events.column("source")
    seeds = _of_each(source, [name_hash(text) for text in source.dictionary.to_pylist()])
    text = np.frombuffer(events.column("id").buffers()[2], np.uint8)[: 36 * events.num_rows].reshape(-1, 36)
    block = np.ascontiguousarray(text[:, :32]).view("<u8").astype(np.uint64)
    tail = np.ascontiguousarray(text[:, 32:]).view("<u4")[:, 0].astype(np.uint64)
    return _murmur([(block[:, 0], block[:, 1]), (block[:, 2], block[:, 3])], tail, 36, seeds)


def digests(events: pa.RecordBatch, identity: Wide, places: "Places") -> Wide:
    """What each event adds to the digests of its rows."""
    low, high = np.zeros(events.num_rows, np.uint64), np.zeros(events.num_rows, np.uint64)
    for meter in METERS:
        quantity, there = quantities(events, meter)
        name_low, name_high = (np.uint64(word) for word in words(name_hash(meter)))
        term = np.where(there, _fmix(quantity.astype(np.uint64) + name_low), np.uint64(0))
        low = low + term
        high = high + np.where(there, _fmix(quantity.astype(np.uint64) ^ name_high), np.uint64(0))
        high = high + (low < term).astype(np.uint64)
    zero = (np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    payload = _murmur([places.hashes(events), (low, high)], None, 32, zero)
    return _murmur([identity, payload], None, 32, zero)


def quantities(events: pa.RecordBatch, meter: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The quantity of a meter in each event, and which events have it."""
    column = events.column(meter)
    return column.fill_null(0).to_numpy(), column.is_valid().to_numpy(zero_copy_only=False)


@dataclass
class Places:
    """Numbers for combinations of dimensions, as they are met."""

    dims: list[tuple[str, ...]] = field(default_factory=list)
    _numbers: dict[int, int] = field(default_factory=dict)
    _hashes: list[tuple[int, int]] = field(default_factory=list)

    def numbers(self, events: pa.RecordBatch) -> NDArray[np.int64]:
        """The number of each event's combination."""
        columns = [events.column(name) for name in DIMENSIONS]
        code = np.zeros(events.num_rows, np.int64)
        for column in columns:
            code = code * len(column.dictionary) + column.indices.to_numpy()
        found, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        for one, row in zip(found.tolist(), first.tolist(), strict=True):
            if one not in self._numbers:
                dims = tuple(column[row].as_py() for column in columns)
                self._numbers[one] = len(self.dims)
                self.dims.append(dims)
                self._hashes.append(words(dims_hash(dict(zip(DIMENSIONS, dims, strict=True)))))
        return np.array([self._numbers[one] for one in found.tolist()], np.int64)[inverse]

    def hashes(self, events: pa.RecordBatch) -> Wide:
        """The hash of each event's combination."""
        numbers = self.numbers(events)
        low, high = np.array(self._hashes, np.uint64).T
        return low[numbers], high[numbers]


# ---- Sums ----------------------------------------------------------------------------------------------------------


def truth(spec: Synthetic, rates: Rates) -> Cells:
    """What the minute view must say."""
    low = np.concatenate([fingerprints(events)[0] for events in batches(spec, 0, _BATCH_ROWS)])
    counts = np.zeros(spec.events, np.bool_)
    counts[np.unique(low, return_index=True)[1]] = True
    places, cells, start = Places(), Cells(), 0
    for events in batches(spec, 0, _BATCH_ROWS):
        rows = np.flatnonzero(counts[start : start + events.num_rows])
        start += events.num_rows
        _add(cells, events.take(pa.array(rows)), places)
    rate(cells, rates)
    return cells


def _add(cells: Cells, events: pa.RecordBatch, places: Places) -> None:
    minute = events.column("time").cast(pa.int64()).to_numpy() // 60_000_000
    digest = digests(events, fingerprints(events), places)
    place = places.numbers(events)
    order = np.lexsort((place, minute))
    limbs = [limb[order] for word in digest for limb in (word & _LOW, word >> np.uint64(32))]
    minute, place = minute[order], place[order]
    for meter in (*METERS, REQUESTS):
        quantity, there = (np.ones_like(minute), np.ones(minute.size, np.bool_))
        if meter != REQUESTS:
            quantity, there = (part[order] for part in quantities(events, meter))
        for at, one, sums in _runs(minute[there], place[there], [quantity[there], *(limb[there] for limb in limbs)]):
            cell = cells.setdefault((at * 60, places.dims[one], meter), Cell())
            cell.add(sums[0], sums[1], joined(sums[2:]))


def _runs(
    minute: NDArray[np.int64], place: NDArray[np.int64], columns: list[NDArray[np.int64] | Words]
) -> Iterator[tuple[int, int, list[int]]]:
    """For each run of rows of one minute and place: both, and [sum of column 0, rows, sums of the others]."""
    if not minute.size:
        return
    starts = np.flatnonzero(np.r_[True, (np.diff(minute) != 0) | (np.diff(place) != 0)])
    sums = [np.add.reduceat(column, starts).tolist() for column in columns]
    rows = np.diff(np.r_[starts, minute.size]).tolist()
    for n, start in enumerate(starts.tolist()):
        yield int(minute[start]), int(place[start]), [sums[0][n], rows[n], *(one[n] for one in sums[1:])]


def joined(limbs: list[int]) -> int:
    """A digest from the sums of its four parts of 32 bits."""
    return sum(limb << 32 * n for n, limb in enumerate(limbs)) % 2**128


def rate(cells: Cells, rates: Rates) -> None:
    """Fills in the amounts: all prices hold for the whole time, so that sums may be rated. Unpriced is 0."""
    for (start_s, dims, meter), cell in cells.items():
        narrowed = rates.narrowed(dict(zip(DIMENSIONS, dims, strict=True)))
        cell.amount_femto = int(rates.amount_femto(meter, narrowed, start_s * 1_000_000, cell.quantity) or 0)
