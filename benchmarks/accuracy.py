"""How exact is it when everything fails: Tallyflow beside three at-least-once designs, through the same misfortunes.

    python benchmarks/accuracy.py [--events 10000000] [--kills 20] [--outages 5] [--sides NAME ...]

2 % of the events are duplicates (half of them with a time of their own; up to a fifth of all events lie between, and so
do restarts), 0.1 % conflict, and times are in disorder by up to half an hour of two. Each side is killed with SIGKILL
20 times, soon after it has published something, and loses its store 5 times: answers to inserts are lost, then it
refuses connections, and twice the process is killed in the middle of that. The store is a ClickHouse engine in a
process of its own, over HTTP. What the rollups must say is added up in NumPy (`event_truth.py`), with hashes that share
no code with the kernels, and held against each row of what a side has in the end.

The other designs read the same events, keep the position behind what they have inserted, and go on from there:
`naive insert` of each epoch; `ReplacingMergeTree` ordered by identity, read without FINAL; and a plain `Bloom filter`
(one in a thousand false when full), which is saved with the position. Their amounts are exact: rated after adding up.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from event_truth import Cell, Cells, Places, digests, fingerprints, joined, rate, truth
from figures import ACCURACY, Chart, Figure, Look, keep, parser
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the store's front, which the tests have
from tests.faults.http_front import Fault, FrontProcess

from flow.config import Store
from flow.errors import StoreError
from flow.generate import METERS, Synthetic, batch, expected, prices_yaml
from flow.oracle.rollup import Rates
from flow.prices.book import parse_price_book
from flow.schema import DIMENSIONS, REQUESTS
from flow.store import StoreClient, connect
from flow.store.client import StoreUnavailable

BLOOM_FALSE = 0.001
OUTAGES_WITH_A_KILL = 2
RETRY_S = 0.1
LOOK_S = 0.1
START_S = 120
_EXACT = Context(prec=60)


def spec_of(events: int) -> Synthetic:
    """The events of this benchmark."""
    return Synthetic(
        seed=3,
        events=events,
        customers=50,
        combinations_per_customer=8,
        duplicate_ppm=20_000,
        retimed_ppm=500_000,
        conflicting_ppm=1000,
        bad_ppm=0,
        duplicate_distance_max=max(events // 5, 1),
        disorder_s=1800,
        duration_s=7200,
    )


def batch_rows(events: int) -> int:
    return min(max(events // 250, 8), 4096)


# ---- The sides -----------------------------------------------------------------------------------------------------


class Tallyflow:
    """`tallyflow run`, with a ledger."""

    database = "tallyflow"

    def __init__(self, folder: Path, port: int, spec: Synthetic, epoch_ms: int) -> None:
        given = asdict(spec)
        del given["start"]
        (folder / "prices.yaml").write_text(prices_yaml(spec.models))
        (folder / "config.yaml").write_text(
            f"source: {json.dumps({'kind': 'synthetic', **given})}\nprices: prices.yaml\n"
            f"store: clickhouse://default:@127.0.0.1:{port}/tallyflow\nstate_dir: state\nledger: ledger\n"
            f"epoch: {epoch_ms}ms\nlimits: {{batch_rows: {batch_rows(spec.events)}}}\n"
        )
        self.command = [sys.executable, "-m", "flow", "run", str(folder / "config.yaml")]

    def progress(self, client: StoreClient) -> int:
        """Events of which something is in the store."""
        return int(client.rows("SELECT sum(read) FROM pipeline_balance")[0][0])

    def cells(self, client: StoreClient, rates: Rates) -> Cells:
        """The minute view."""
        names = ", ".join(DIMENSIONS)
        sql = f"SELECT toUnixTimestamp(window_start), {names}, meter, quantity, events, digest, amount"
        return {
            (start, tuple(dims), meter): Cell(quantity, events, digest, int(amount.scaleb(15, _EXACT)))
            for start, *dims, meter, quantity, events, digest, amount in client.rows(f"{sql} FROM usage_by_minute")
        }

    def others(self, client: StoreClient, spec: Synthetic, cells: Cells) -> list[str]:
        """What else does not agree: the balance with what was drawn, and the month view with the minutes."""
        told = expected(spec)
        wanted = (told.read, told.accepted, told.duplicate, told.conflicting, told.rejected, 0)
        sums = ", ".join(
            f"sum({name})" for name in ("read", "accepted", "duplicate", "conflicting", "rejected", "late")
        )
        (found,) = client.rows(f"SELECT {sums} FROM pipeline_balance")
        months = {
            meter: (quantity, int(amount.scaleb(15, _EXACT)))
            for meter, quantity, amount in client.rows(
                "SELECT meter, sum(quantity), sum(amount) FROM usage_by_month GROUP BY meter"
            )
        }
        minutes: dict[str, tuple[int, int]] = {}
        for (_, _, meter), cell in cells.items():
            quantity, amount = minutes.get(meter, (0, 0))
            minutes[meter] = (quantity + cell.quantity, amount + cell.amount_femto)
        return [f"balance {found}, not {wanted}"] * (found != wanted) + ["months"] * (months != minutes)


class AtLeastOnce:
    """A process that inserts an epoch, then keeps its position; see `child`."""

    database = "default"
    dedup = False
    engine = "MergeTree ORDER BY (customer, event_time_us)"

    def __init__(self, folder: Path, port: int, spec: Synthetic, epoch_ms: int) -> None:
        this, name = str(Path(__file__).resolve()), type(self).__name__
        self.command = [sys.executable, this, "child", name, str(folder), str(port), str(spec.events), str(epoch_ms)]
        with store(port, self.database) as client:
            client.command(f"CREATE TABLE events ({', '.join(_COLUMNS)}) ENGINE = {self.engine}")

    def progress(self, client: StoreClient) -> int:
        return int(client.rows("SELECT count() FROM events")[0][0])

    def cells(self, client: StoreClient, rates: Rates) -> Cells:
        """What the minute view would say: the rows as they are, added up."""
        cells = Cells()
        keys = f"intDiv(event_time_us, 60000000) * 60 AS start, {', '.join(DIMENSIONS)}"
        halves = [f"bitAnd(bitShiftRight({word}, {shift}), 4294967295)" for word in _DIGEST for shift in (0, 32)]
        sums = ", ".join(f"sum({half})" for half in halves)
        for meter in (*METERS, REQUESTS):
            quantity, where = ("count()", "") if meter == REQUESTS else (f"sum({meter})", f"WHERE {meter} IS NOT NULL")
            sql = f"SELECT {keys}, {quantity}, count(), {sums} FROM events {where}"
            for start, *row in client.rows(f"{sql} GROUP BY start, {', '.join(DIMENSIONS)}"):
                dims, (total, rows, *parts) = row[: len(DIMENSIONS)], row[len(DIMENSIONS) :]
                cells[start, tuple(dims), meter] = Cell(total, rows, joined(parts))
        rate(cells, rates)
        return cells

    def others(self, client: StoreClient, spec: Synthetic, cells: Cells) -> list[str]:
        return []


class NaiveInsert(AtLeastOnce):
    """Each epoch is inserted."""


class Replacing(AtLeastOnce):
    """The engine drops what has the identity of something newer, whenever it merges."""

    engine = "ReplacingMergeTree(number) ORDER BY (fingerprint_low, fingerprint_high)"


class BloomFilter(AtLeastOnce):
    """What a Bloom filter has seen before is dropped."""

    dedup = True


SIDES: dict[str, type[Tallyflow] | type[AtLeastOnce]] = {
    "tallyflow": Tallyflow,
    "naive insert": NaiveInsert,
    "ReplacingMergeTree without FINAL": Replacing,
    "plain Bloom filter": BloomFilter,
}

_DIGEST = ("digest_low", "digest_high")
_COLUMNS = [
    "number UInt64",
    "fingerprint_low UInt64",
    "fingerprint_high UInt64",
    "event_time_us Int64",
    *(f"{name} LowCardinality(String)" for name in DIMENSIONS),
    *(f"{meter} Nullable(Int64)" for meter in METERS),
    *(f"{word} UInt64" for word in _DIGEST),
]


def store(port: int, database: str) -> StoreClient:
    """A connection to the front; raises StoreError."""
    client = connect(Store(kind="clickhouse", host="127.0.0.1", port=port, user="default", database=database))
    client.use_database()
    return client


# ---- The process of an at-least-once design ------------------------------------------------------------------------


class Bloom:
    """A plain Bloom filter over fingerprints, of one size for all events."""

    def __init__(self, events: int) -> None:
        self._bits = max(math.ceil(-events * math.log(BLOOM_FALSE) / math.log(2) ** 2), 64)
        self._hashes = round(self._bits / events * math.log(2))
        self.words = np.zeros(self._bits // 8 + 1, np.uint8)

    def unseen(self, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows that it has not seen, the first of each identity; it has seen them then."""
        rows: NDArray[np.int64] = np.sort(np.unique(low, return_index=True)[1])
        steps = np.arange(self._hashes, dtype=np.uint64)[:, None]
        places = (low[rows] + steps * (high[rows] | np.uint64(1))) % np.uint64(self._bits)
        byte, bit = (places >> np.uint64(3)).astype(np.int64), np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
        new: NDArray[np.bool_] = ((self.words[byte] & bit) == 0).any(axis=0)
        np.bitwise_or.at(self.words, byte[:, new], bit[:, new])
        unseen: NDArray[np.int64] = rows[new]
        return unseen


def child(design: str, folder: Path, port: int, events: int, epoch_ms: int) -> None:
    """Inserts epoch after epoch, from the position kept on."""
    spec, kept, places = spec_of(events), folder / "position", Places()
    bloom = Bloom(events) if getattr(sys.modules[__name__], design).dedup else None
    position, inserting = 0, Inserting(port, folder / "epoch.arrow")
    if kept.exists():
        content = kept.read_bytes()
        position = int.from_bytes(content[:8], "little")
        if bloom is not None:
            bloom.words = np.frombuffer(content[8:], np.uint8).copy()
    while position < events:
        parts, ends_at = [], time.monotonic() + epoch_ms / 1000
        while position < events and time.monotonic() < ends_at:
            rows = min(batch_rows(events), events - position)
            parts.append(as_rows(batch(spec, position, rows), position, places, bloom))
            position += rows
        inserting.insert(pa.concat_tables(parts).combine_chunks())
        fresh = kept.with_suffix(".new")
        fresh.write_bytes(position.to_bytes(8, "little") + (bloom.words.tobytes() if bloom is not None else b""))
        fresh.rename(kept)


class Inserting:
    """Does what every client does: tries again until the store answers."""

    def __init__(self, port: int, path: Path) -> None:
        self._port, self._path = port, path
        self._client: StoreClient | None = None

    def insert(self, rows: pa.Table) -> None:
        with pa.ipc.new_file(self._path, rows.schema) as writer:
            writer.write_table(rows)
        while True:
            try:
                self._client = self._client or store(self._port, "default")
                return self._client.insert_file("events", rows.schema.names, self._path, {"async_insert": "0"})
            except StoreUnavailable:
                time.sleep(RETRY_S)  # as a client waits between two tries


def as_rows(events: pa.RecordBatch, first: int, places: Places, bloom: Bloom | None) -> pa.Table:
    """A batch as rows of the table, without those that the filter has seen."""
    identity = fingerprints(events)
    columns = [
        pa.array(np.arange(first, first + events.num_rows, dtype=np.uint64)),
        *(pa.array(word) for word in identity),
        events.column("time").cast(pa.int64()),
        *(events.column(name).cast(pa.string()) for name in DIMENSIONS),
        *(events.column(meter) for meter in METERS),
        *(pa.array(word) for word in digests(events, identity, places)),
    ]
    table = pa.table(columns, names=[column.split()[0] for column in _COLUMNS])
    return table if bloom is None else table.take(pa.array(bloom.unseen(*identity)))


# ---- Misfortunes ---------------------------------------------------------------------------------------------------


@dataclass
class Suffered:
    """What one side went through."""

    kills: int = 0
    outages: int = 0


def misfortunes(events: int, kills: int, outages: int, draw: random.Random) -> list[tuple[int, str]]:
    """What happens, and at which event: evenly over nine tenths of them."""
    both = min(OUTAGES_WITH_A_KILL, outages, kills)
    kinds = ["kill"] * (kills - both) + ["outage"] * (outages - both) + ["outage with a kill"] * both
    draw.shuffle(kinds)
    return [(n * events * 9 // (10 * len(kinds)), kind) for n, kind in enumerate(kinds)]


class Ordeal:
    """Runs one side to its end, through its misfortunes."""

    def __init__(self, side: Any, front: FrontProcess, folder: Path, epoch_ms: int, draw: random.Random) -> None:
        self._side, self._front, self._folder, self._draw = side, front, folder, draw
        self._epoch_s = epoch_ms / 1000
        self._client: StoreClient | None = None
        self.suffered = Suffered()
        self._start()

    def _start(self) -> None:
        with (self._folder / "messages").open("ab") as messages:
            self._process = subprocess.Popen(self._side.command, stdout=messages, stderr=messages, cwd=self._folder)
        self._begun_at = self._progress()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.suffered.kills += 1

    def _progress(self) -> int:
        with suppress(StoreError):  # the tables are not made yet, or the line was cut by what happened last
            self._client = self._client or store(self._front.port, self._side.database)
            return int(self._side.progress(self._client))
        return 0

    def _reach(self, event: int) -> None:
        give_up_at = time.monotonic() + START_S
        last = self._progress()
        while not (last >= event and last > self._begun_at):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                said = (self._folder / "messages").read_text()
                raise SystemExit(f"it ended, or stood still, before event {event}; use more events?\n{said}")
            time.sleep(LOOK_S)  # the process writes how far it is into a file; nothing else tells
            if (now := self._progress()) > last:
                last, give_up_at = now, time.monotonic() + START_S

    def run(self, planned: list[tuple[int, str]]) -> None:
        for event, kind in planned:
            self._reach(event)
            time.sleep(self._draw.random() * 2 * self._epoch_s)  # anywhere in an epoch
            if kind == "kill":
                self._kill()
                self._start()
            else:
                self._outage(kind == "outage with a kill")
        if self._process.wait():
            raise SystemExit(f"{self._side.command} failed:\n{(self._folder / 'messages').read_text()}")

    def _outage(self, kill: bool) -> None:
        """Answers are lost, then nobody answers; the store is back after some epochs."""
        self._front.fault(Fault("drop", times=2))
        time.sleep(self._epoch_s)  # so that inserts meet the fault
        self._front.refuse()
        time.sleep((2 + 4 * self._draw.random()) * self._epoch_s)  # the outage
        if kill:
            self._kill()
        self._front.heal()
        self._front.accept()
        self.suffered.outages += 1
        if kill:
            self._start()


# ---- What it comes to ----------------------------------------------------------------------------------------------


def compared(wanted: Cells, found: Cells) -> dict[str, Any]:
    """How far two sets of rows are apart."""
    none, lost, twice, amount_femto, mismatches = Cell(), 0, 0, 0, 0
    for key in wanted.keys() | found.keys():
        want, have = wanted.get(key, none), found.get(key, none)
        if key[2] == REQUESTS:
            lost += max(want.events - have.events, 0)
            twice += max(have.events - want.events, 0)
        amount_femto += abs(have.amount_femto - want.amount_femto)
        mismatches += (want.digest, want.quantity, want.events) != (have.digest, have.quantity, have.events)
    return {
        "events_lost": lost,
        "events_counted_twice": twice,
        "amount_error_femto": str(amount_femto),
        "digest_mismatches": mismatches,
    }


def suffer(name: str, options: argparse.Namespace, wanted: Cells, rates: Rates) -> dict[str, Any]:
    """One side: what it went through, and how far it is from the truth."""
    spec, draw = spec_of(options.events), random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.data) as made:
        folder = Path(made)
        front = FrontProcess(folder / "server")
        try:
            (folder / "side").mkdir()
            side = SIDES[name](folder / "side", front.port, spec, options.epoch_ms)
            ordeal = Ordeal(side, front, folder / "side", options.epoch_ms, draw)
            ordeal.run(misfortunes(options.events, options.kills, options.outages, draw))
            with store(front.port, side.database) as client:
                cells = side.cells(client, rates)
                others = side.others(client, spec, cells)
        finally:
            front.close()
    return {"side": name, **asdict(ordeal.suffered), **compared(wanted, cells), "other_differences": others}


def report(options: argparse.Namespace, sides: list[dict[str, Any]]) -> None:
    """A table on the terminal and a JSON file."""
    table = Table(title=f"{options.events:,} events, {options.kills} kills, {options.outages} outages of the store")
    for title in ("", "lost", "counted twice", "amount error", "digest mismatches"):
        table.add_column(title, justify="left" if not title else "right")
    for side in sides:
        amount = int(side["amount_error_femto"])
        table.add_row(
            side["side"],
            f"{side['events_lost']:,}",
            f"{side['events_counted_twice']:,}",
            f"{amount // 10**15:,}.{amount % 10**15:015}",
            f"{side['digest_mismatches']:,}",
        )
    Console(width=120).print(table)
    result = {"events": options.events, "seed": options.seed, "sides": sides}
    keep("accuracy", figures_of(result), result, options.results, charts_of(result))


def charts_of(result: dict[str, Any]) -> list[Chart]:
    """What each side lost and counted twice."""
    names = {"lost": "events_lost", "counted twice": "events_counted_twice"}
    values = {word: {side["side"]: side[name] for side in result["sides"]} for word, name in names.items()}
    kills, outages = (result["sides"][0][name] for name in ("kills", "outages"))
    title = f"{result['events']:,} events, {kills} kills, {outages} outages of the store"
    return [Chart(ACCURACY, Look.BARS, title, "events", values)]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """What is lost and counted twice; nothing may be, where we are."""
    figures = []
    for side in result["sides"]:
        under = f"{side['side']}, {result['events']:,} events, {side['kills']} kills, {side['outages']} outages"
        most = 0 if side["side"] == "tallyflow" else None
        wrong = side["events_lost"] + side["events_counted_twice"]
        figures.append(Figure(f"{under}: lost or counted twice", wrong, at_most=most))
    return figures


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        design, folder, *numbers = sys.argv[2:]
        child(design, Path(folder), *map(int, numbers))
        return
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--outages", type=int, default=5)
    arguments.add_argument("--epoch-ms", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    arguments.add_argument("--data", help="where state and stores are kept; default: a temporary folder")
    options = arguments.parse_args()
    book = parse_price_book(prices_yaml(), "prices")
    rates = Rates(book.prices, book.unbilled)
    wanted = truth(spec_of(options.events), rates)
    sides = []
    for name in options.sides:
        print(f"{name} ...", file=sys.stderr)
        sides.append(suffer(name, options, wanted, rates))
    report(options, sides)
    exact = [side for side in sides if side["side"] == "tallyflow"]
    if any(side["digest_mismatches"] or int(side["amount_error_femto"]) or side["other_differences"] for side in exact):
        raise SystemExit("Tallyflow is not exact")


if __name__ == "__main__":
    main()
