"""A usage report as CSV, read by its mapping; each column has a meaning there, or is said to have none."""

import csv
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..errors import ConfigError
from .provider import GRAIN_S, Refusal, Row, UsageReport, check_rows, check_size, check_start
from .provider_mapping import UNIT, ReportMapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = ("customer", "model")
_DIGITS = re.compile(r"[0-9]{1,30}")
_OTHER_UNIT = re.compile(
    r"(?<![a-z])(?:k|1k|1000|thousands?|m|mm|1m|millions?|mtoks?|ktoks?|kilo\w*|mega\w*|words|chars?|characters|usd|eur|cost)"
    r"(?![a-z])",
    re.IGNORECASE,
)
"""What tells in a column's name that it counts something else than one token."""


def read_csv(paths: list[Path], mapping: ReportMapping) -> UsageReport:
    """Reads a report. Raises ConfigError with every problem found."""
    label = ", ".join(map(str, paths))
    if not mapping.columns:
        raise ConfigError(f"{label}: a CSV needs --mapping, which says what its columns count; see docs/reconcile.md")
    refusal = Refusal(label)
    rows = [row for path in paths for row in _rows(path, mapping, refusal, len(paths) > 1)]
    if not rows:
        refusal.add("rows", "none", "at least one")
    check_rows(rows, refusal)
    check_size([row.start_s for row in rows], mapping.grain, refusal)
    refusal.raise_if_any()
    starts_s = [row.start_s for row in rows]
    return UsageReport(
        label,
        mapping.grain,
        min(starts_s),
        max(starts_s) + GRAIN_S[mapping.grain],
        rows,
        tells_customers="customer" in mapping.columns,
        tells_models="model" in mapping.columns,
    )


def _rows(path: Path, mapping: ReportMapping, refusal: Refusal, several: bool) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if not _check_header(header, mapping, refusal):
                return
            seen: dict[tuple[str, ...], int] = {}
            for cells in reader:
                place = f"{path.name}: line {reader.line_num}" if several else f"line {reader.line_num}"
                if len(cells) != len(header):
                    refusal.add(place, f"{len(cells)} fields", f"{len(header)}, as in the first line")
                    continue
                if (before := seen.setdefault(tuple(cells), reader.line_num)) != reader.line_num:
                    refusal.add(place, f"the same as line {before}", "each row once")
                yield from _row(dict(zip(header, cells, strict=True)), mapping, place, refusal)
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from None


def _check_header(header: list[str], mapping: ReportMapping, refusal: Refusal) -> bool:
    """Whether each column is there and known."""
    asked = {*mapping.columns.values(), *mapping.counts, *mapping.ignore}
    missing, unknown = sorted(asked - set(header)), [name for name in header if name not in asked]
    if missing:
        refusal.add("line 1", f"no column {', '.join(missing)}", "the columns of the mapping")
    if unknown:
        refusal.add("line 1", f"columns {', '.join(unknown)}", "each in `columns`, `counts` or `ignore` of the mapping")
    if len(set(header)) < len(header):
        refusal.add("line 1", "a column twice", "each once")
    for name, classes in mapping.counts.items():
        match = None if all(one.startswith("=") for one in classes) else _OTHER_UNIT.search(name.replace("_", " "))
        if match:
            refusal.add("line 1", f"column {name}, whose unit is '{match[0]}'", f"{UNIT}, one each")
    return not (missing or unknown)


def _row(cells: Mapping[str, str], mapping: ReportMapping, place: str, refusal: Refusal) -> Iterator[Row]:
    start_s = _start_s(cells[mapping.columns["start"]].strip(), mapping, place, refusal)
    counts: dict[str, int] = {}
    for column, classes in mapping.counts.items():
        text = cells[column].strip() or "0"
        if not _DIGITS.fullmatch(text):
            refusal.add(f"{place}, {column}", f"'{text}'", f"a whole number of {UNIT}, in digits only")
            return
        for name in classes:
            counts[name] = counts.get(name, 0) + int(text)
    if start_s is not None:
        customer, model = (cells[mapping.columns[name]] if name in mapping.columns else "" for name in _NAMES)
        yield mapping.row(place, start_s, customer, model, counts)


def _start_s(text: str, mapping: ReportMapping, place: str, refusal: Refusal) -> int | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        refusal.add(place, f"'{text}'", "a date or time, as in 2026-11-01 or 2026-11-01T12:00:00Z")
        return None
    if instant.tzinfo is None:
        if not mapping.utc:
            refusal.add(place, f"'{text}', which names no zone", "UTC, in the time or as `zone: UTC` in the mapping")
            return None
        instant = instant.replace(tzinfo=UTC)
    if instant.utcoffset():
        refusal.add(place, f"'{text}', in another zone", "buckets of UTC")
        return None
    start_s, rest = divmod(instant - _EPOCH, timedelta(seconds=1))
    if rest or start_s < 0:
        refusal.add(place, f"'{text}'", f"the beginning of a {mapping.grain}")
        return None
    check_start(start_s, mapping.grain, place, refusal)
    return start_s
