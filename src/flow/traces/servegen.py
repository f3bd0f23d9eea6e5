"""ServeGen: production LLM clients, as counts of arrivals in each 600 s and token histograms for each 6 h.

Two ways to make events of them:

`events` draws requests. Each client and window has the published number of requests, times `scale`; rounding
is such that a client's running total is always the nearest whole number, so at scale 1 the counts are the
published ones. Gaps between a window's requests are drawn from the published distribution (Gamma or Weibull
with shape `p1`) and stretched to fill the window, so bursts stay bursts. Tokens are drawn from those
histograms of the client that began last at or before the request's window (else the earliest), each field on
its own.
`reason_ratio` splits the output: reasoning_tokens = output x ratio, rounded half up, and output_tokens is the
rest. If a client has `text_tokens`, these are its input_tokens, since its other fields (image_tokens,
audio_tokens, ...) are disjoint from them; every other field is a meter of its own name. A client without
histograms has requests whose only meter is `unmeasured_requests`, 1 each: an event needs a meter. Event time
ascends, and memory is bounded by one window of all clients: any scale can be streamed.

`totals` draws nothing and puts every published number through the pipeline as a quantity: one event for each
row of arrivals (meter `published_requests`) and one for each bin of each histogram (FIELD = value x count,
samples_FIELD = count; for ratios only samples_FIELD). A histogram published as probabilities is one event
with `histograms_kept_as_probabilities`, 1. So sums over billions of requests come out exactly from a few
million events.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import ConfigError, SourceError
from . import BASE_TIME, BATCH_ROWS, build_batch, columnar_schema, constant, read_json_lines, trace_name

Integers = NDArray[np.int64]

REASON_RATIO = "reason_ratio"
UNMEASURED = "unmeasured_requests"
PUBLISHED_REQUESTS = "published_requests"
PROBABILITIES = "histograms_kept_as_probabilities"

_RATIO_UNITS = 10**9  # a ratio is kept as a whole number of these
_WEIGHT_UNITS = 10**17  # and a probability as one of these, the digits of a double
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,55}")


@dataclass(frozen=True, eq=False)
class Histogram:
    """What one field's values were in a window of a client."""

    start_s: int
    values: Integers
    """[bins]; tokens, or 10^-9 for a ratio."""
    counts: Integers
    """[bins]; how many samples had the value, or its probability in 10^-17."""
    samples: int | None
    """The sum of `counts`; None if they are probabilities."""

    def draw(self, random: np.random.Generator, rows: int) -> Integers:
        """[rows] of values, each as likely as its count says."""
        ends = np.cumsum(self.counts)
        return self.values[np.searchsorted(ends, random.integers(0, ends[-1], rows), side="right")]


@dataclass(frozen=True, eq=False)
class Client:
    """One client: parallel lists of its windows with requests, ascending, and its histograms."""

    name: str
    window_s: int
    starts_s: list[int]
    requests: list[int]
    weibull: list[bool]
    shapes: list[float]
    histograms: dict[str, list[Histogram]] = field(default_factory=dict)
    """By field, in ascending order of `start_s`."""

    def in_force(self, name: str, start_s: int) -> Histogram:
        """The histogram that began last at or before `start_s`, else the earliest."""
        histograms = self.histograms[name]
        return next((h for h in reversed(histograms) if h.start_s <= start_s), histograms[0])


# ---- Reading ----


def read(path: Path) -> list[Client]:
    """The clients in file order. Raises SourceError for a line that is not of this form."""
    clients: dict[str, Client] = {}
    histograms: dict[str, dict[str, list[Histogram]]] = {}
    for number, line in enumerate(read_json_lines(path), 1):
        try:
            if line["kind"] == "arrivals":
                clients[line["client"]] = _client(line)
            elif line["kind"] == "histogram" and _FIELD_NAME.fullmatch(line["field"]):
                of_client = histograms.setdefault(line["client"], {})
                of_client.setdefault(line["field"], []).append(_histogram(line))
            else:
                raise ValueError(f"kind {line['kind']}, field {line.get('field')}")
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{path}, line {number}: not a ServeGen line: {error!r}") from error
    for name, fields in histograms.items():
        client = clients.setdefault(name, Client(name, 600, [], [], [], []))
        for key, found in fields.items():
            client.histograms[key] = sorted(found, key=lambda histogram: histogram.start_s)
    return list(clients.values())


def _client(line: dict[str, Any]) -> Client:
    columns = {name: n for n, name in enumerate(line["columns"])}
    rows = sorted(line["rows"], key=lambda row: row[columns["start_s"]])
    return Client(
        name=line["client"],
        window_s=line["window_seconds"],
        starts_s=[row[columns["start_s"]] for row in rows],
        requests=[row[columns["requests"]] for row in rows],
        weibull=[row[columns["pattern"]] == "Weibull" for row in rows],
        shapes=[_shape(row[columns["p1"]]) for row in rows],
    )


def _shape(text: str) -> float:
    """A distribution's shape; 1 (Poisson arrivals) if none was published. Below 1/1000 all is one burst."""
    shape = Decimal(text or "1")
    return float(min(max(shape, Decimal("0.001")), Decimal(10_000))) if shape.is_finite() else 1.0


def _histogram(line: dict[str, Any]) -> Histogram:
    """Its numbers as integers: values of a ratio and probabilities come as decimal text."""
    ratio = line["field"] == REASON_RATIO
    bins: Sequence[tuple[Any, Any]] = line["probabilities"] if line["n"] is None else line["counts"]
    values = [_scaled(value, _RATIO_UNITS) if ratio else _scaled(value, 1) for value, _ in bins]
    counts = [_scaled(count, _WEIGHT_UNITS if line["n"] is None else 1) for _, count in bins]
    if not bins or min(counts) < 0 or min(values) < 0 or sum(counts) == 0:
        raise ValueError("a histogram without samples, or with a negative number")
    return Histogram(
        line["window_start_s"],
        np.array(values, dtype=np.int64),
        np.array(counts, dtype=np.int64),
        None if line["n"] is None else sum(counts),
    )


def _scaled(number: int | str, units: int) -> int:
    """A number in 1/units, rounded; a count or a token value (units 1) must be whole."""
    if isinstance(number, int):
        return number * units
    scaled = Decimal(number) * units
    if units == 1 and scaled != int(scaled):
        raise ValueError(f"{number} is not a whole number")
    return round(scaled)


# ---- Drawn requests ----


def scaled_requests(client: Client, scale: Fraction) -> list[int]:
    """[windows]: requests x scale, each running total rounded half up; at scale 1 the published counts."""
    scaled, published, before = [], 0, 0
    for requests in client.requests:
        published += requests
        total = (2 * published * scale.numerator + scale.denominator) // (2 * scale.denominator)
        scaled.append(total - before)
        before = total
    return scaled


def parse_scale(text: str) -> Fraction:
    """A scale from `0.001` or `1/1000`. Raises ConfigError unless it is above 0."""
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        scale = Fraction(0)
    if scale <= 0:
        raise ConfigError(f"--scale: must be a number above 0, such as 0.001 or 1/1000, not {text!r}")
    return scale


def events(
    path: Path, *, seed: int = 1, scale: Fraction = Fraction(1), base_time: datetime = BASE_TIME
) -> Iterator[pa.RecordBatch]:
    """Requests drawn by `seed`, in order of time. Seed and scale are part of their identity (the source)."""
    clients = read(path)
    meters = _meters(clients)
    schema = columnar_schema(meters)
    source = f"servegen/{trace_name(path)}/seed-{seed}/scale-{scale}"
    dimensions = _dimensions(clients)
    for table in _batched(_windows(clients, seed, scale, meters)):
        rows = table["client"].size
        columns = {
            "id": _joined("", table["client"], table["start_s"], table["number"]),
            "source": constant(source, rows),
            "time": _times(table["time_us"], base_time),
            **_dimension_columns(dimensions, table["client"]),
            **{meter: pa.array(table[meter], mask=table[meter] < 0) for meter in meters},
        }
        yield build_batch(schema, rows, columns)


def _windows(clients: list[Client], seed: int, scale: Fraction, meters: list[str]) -> Iterator[dict[str, Integers]]:
    """The requests of one window after the other, those of a window in order of time."""
    arrivals: dict[int, list[tuple[int, int, int]]] = {}
    for place, client in enumerate(clients):
        for n, (start_s, rows) in enumerate(zip(client.starts_s, scaled_requests(client, scale), strict=True)):
            if rows:
                arrivals.setdefault(start_s, []).append((place, n, rows))
    for start_s in sorted(arrivals):
        # A generator of its own for each window: what one draws does not depend on the others.
        random = np.random.Generator(np.random.PCG64([seed, start_s]))
        table = _window(clients, arrivals[start_s], random, meters)
        order = np.argsort(table["time_us"], kind="stable")
        yield {name: column[order] for name, column in table.items()}


def _batched(tables: Iterable[dict[str, Integers]]) -> Iterator[dict[str, Integers]]:
    """The same rows in tables of BATCH_ROWS; the last one has what is left."""
    waiting: list[dict[str, Integers]] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table["client"].size
        if rows >= BATCH_ROWS:
            whole = _concatenated(waiting)
            full = rows - rows % BATCH_ROWS
            for first in range(0, full, BATCH_ROWS):
                yield {name: column[first : first + BATCH_ROWS] for name, column in whole.items()}
            waiting = [{name: column[full:] for name, column in whole.items()}]
            rows -= full
    if rows:
        yield _concatenated(waiting)


def _concatenated(tables: list[dict[str, Integers]]) -> dict[str, Integers]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _meters(clients: list[Client]) -> list[str]:
    """The meters of drawn requests, in a fixed order."""
    found = {meter for client in clients for meter in _client_meters(client)}
    first = [name for name in ("input_tokens", "output_tokens", "reasoning_tokens") if name in found]
    return [*first, *sorted(found - set(first))]


def _client_meters(client: Client) -> set[str]:
    fields = set(client.histograms)
    if not fields - {REASON_RATIO}:
        return {UNMEASURED}
    if "text_tokens" in fields:
        fields = fields - {"text_tokens"} | {"input_tokens"}
    if REASON_RATIO in fields:
        fields = fields - {REASON_RATIO} | ({"reasoning_tokens"} if "output_tokens" in fields else set())
    return fields


def _window(
    clients: list[Client],
    arrivals: list[tuple[int, int, int]],
    random: np.random.Generator,
    meters: list[str],
) -> dict[str, Integers]:
    """The requests of one window, clients in file order; a meter is -1 where it is absent."""
    total = sum(rows for _, _, rows in arrivals)
    names = ("client", "start_s", "number", "time_us", *meters)
    table = {name: np.full(total, -1, dtype=np.int64) for name in names}
    first = 0
    for place, n, rows in arrivals:
        client, part = clients[place], slice(first, first + rows)
        table["client"][part] = place
        table["start_s"][part] = client.starts_s[n]
        table["number"][part] = np.arange(rows)
        table["time_us"][part] = _arrival_times_us(client, n, rows, random)
        for meter, drawn in _usage(client, client.starts_s[n], rows, random).items():
            table[meter][part] = drawn
        first += rows
    return table


def _arrival_times_us(client: Client, n: int, rows: int, random: np.random.Generator) -> Integers:
    """[rows] ascending times within the client's n-th window; rows + 1 gaps fill it."""
    shape = client.shapes[n]
    gaps = random.weibull(shape, rows + 1) if client.weibull[n] else random.standard_gamma(shape, rows + 1)
    gaps = np.minimum(gaps, 1e250)  # so that no sum is infinite
    passed = np.cumsum(gaps)
    window_us = client.window_s * 1_000_000
    within = (passed[:-1] / (passed[-1] or 1.0) * window_us).astype(np.int64)
    return client.starts_s[n] * 1_000_000 + np.minimum(within, window_us - 1)


def _usage(client: Client, start_s: int, rows: int, random: np.random.Generator) -> dict[str, Integers]:
    """[rows] of each of `_client_meters`."""
    if UNMEASURED in _client_meters(client):
        return {UNMEASURED: np.ones(rows, dtype=np.int64)}
    drawn = {name: client.in_force(name, start_s).draw(random, rows) for name in sorted(client.histograms)}
    if "text_tokens" in drawn:
        drawn["input_tokens"] = drawn.pop("text_tokens")
    ratio = drawn.pop(REASON_RATIO, None)
    if ratio is not None and "output_tokens" in drawn:
        reasoning = (drawn["output_tokens"] * ratio + _RATIO_UNITS // 2) // _RATIO_UNITS
        drawn["reasoning_tokens"] = np.minimum(reasoning, drawn["output_tokens"])
        drawn["output_tokens"] = drawn["output_tokens"] - drawn["reasoning_tokens"]
    return drawn


# ---- Published totals ----


def totals(path: Path, *, base_time: datetime = BASE_TIME) -> Iterator[pa.RecordBatch]:
    """Every published number as a quantity, in the order of the windows' starts."""
    clients = read(path)
    fields = sorted({name for client in clients for name in client.histograms})
    kinds = [PUBLISHED_REQUESTS, *fields, PROBABILITIES]
    summed = [name for name in fields if name != REASON_RATIO]
    schema = columnar_schema([PUBLISHED_REQUESTS, *summed, *map(_samples, fields), PROBABILITIES])
    table = _published(clients, kinds)
    source = f"servegen/{trace_name(path)}/totals"
    dimensions = _dimensions(clients)
    for first in range(0, table["client"].size, BATCH_ROWS):
        part = {name: column[first : first + BATCH_ROWS] for name, column in table.items()}
        rows = part["client"].size
        kind = part["kind"]
        columns = {
            "id": _joined(pa.array(kinds).take(pa.array(kind)), part["client"], part["start_s"], part["bin"]),
            "source": constant(source, rows),
            "time": _times(part["start_s"] * 1_000_000, base_time),
            **_dimension_columns(dimensions, part["client"]),
        }
        for n, name in enumerate(kinds):
            count = pa.array(part["count"], mask=kind != n)
            if name not in fields:
                columns[name] = count
                continue
            columns[_samples(name)] = count
            if name != REASON_RATIO:
                columns[name] = pa.array(part["count"] * part["value"], mask=kind != n)
        yield build_batch(schema, rows, columns)


def _samples(name: str) -> str:
    return f"samples_{name}"


def _published(clients: list[Client], kinds: list[str]) -> dict[str, Integers]:
    """All published numbers as columns, in order of start_s.

    client; start_s; kind, a place in `kinds`; bin, which tells apart what these do not; value; count.
    """
    tables: list[dict[str, Integers]] = []

    def add(kind: str, client: int, start_s: Integers | int, bin_: Integers, **columns: Integers) -> None:
        ones = np.ones(columns["count"].size, dtype=np.int64)
        same = {"kind": ones * kinds.index(kind), "client": ones * client, "start_s": ones * start_s}
        tables.append({**same, "bin": bin_, **columns})

    for place, client in enumerate(clients):
        starts_s = np.array(client.starts_s, dtype=np.int64)
        requests = np.array(client.requests, dtype=np.int64)
        add(PUBLISHED_REQUESTS, place, starts_s, requests * 0, value=requests * 0, count=requests)
        for name, histograms in sorted(client.histograms.items()):
            for histogram in histograms:
                start_s, values, counts = histogram.start_s, histogram.values, histogram.counts
                if histogram.samples is None:
                    one = np.ones(1, dtype=np.int64)
                    add(PROBABILITIES, place, start_s, one * kinds.index(name), value=one, count=one)
                else:
                    add(name, place, start_s, np.arange(values.size), value=values, count=counts)
    table = _concatenated(tables)
    order = np.argsort(table["start_s"], kind="stable")
    return {name: column[order] for name, column in table.items()}


# ---- What both share ----


def _times(since_base_us: Integers, base_time: datetime) -> pa.Array:
    base_us = (base_time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return pa.array(since_base_us + base_us).cast(pa.timestamp("us", tz="UTC"))


def _joined(prefix: pa.Array | str, *numbers: Integers) -> pa.Array:
    """[rows] of prefix-number-number-number; without a prefix just the numbers."""
    texts = [pa.array(number).cast(pa.string()) for number in numbers]
    return pc.binary_join_element_wise(*([prefix] if prefix != "" else []), *texts, "-")


def _dimensions(clients: list[Client]) -> dict[str, pa.DictionaryArray]:
    """[clients] of each: customer `language/m-mid/0` has project `language` and model `m-mid`."""
    parts = [["", "", *client.name.split("/")][-3:] for client in clients]
    texts = {
        "customer": [client.name for client in clients],
        "project": [category for category, _, _ in parts],
        "model": [model for _, model, _ in parts],
    }
    return {name: pa.array(values, pa.string()).dictionary_encode() for name, values in texts.items()}


def _dimension_columns(dimensions: dict[str, pa.DictionaryArray], place: Integers) -> dict[str, pa.Array]:
    return {name: of_client.take(pa.array(place)) for name, of_client in dimensions.items()}
