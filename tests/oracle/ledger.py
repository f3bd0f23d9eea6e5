"""Rows of the ledger in plain Python, as its files have them.

A plain row is a dict with the columns of LEDGER: `usage` is a list of (meter, quantity), `source_position` a text.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flow.schema import AMENDS, LEDGER, LEDGER_FILE, OTHER_USAGE, STANDARD_METERS
from flow.state.ledger_file import LedgerFile

PlainRow = dict[str, Any]


def file_row(row: PlainRow) -> PlainRow:
    """The same in the columns of a file, all of them."""
    usage = dict(row["usage"])
    origin, _, place = row["source_position"].rpartition(":")
    position, _, byte = place.partition("+")
    others = [(meter, quantity) for meter, quantity in row["usage"] if meter not in STANDARD_METERS]
    return {
        **{name: row[name] for name in LEDGER.names if name not in ("usage", "source_position")},
        **{meter: usage.get(meter) for meter in STANDARD_METERS},
        "source_position": {"origin": origin, "position": int(position), "message_byte": int(byte or 0)},
        OTHER_USAGE.name: others,
        AMENDS.name: row.get("amends"),
    }


def file_batch(rows: Sequence[PlainRow]) -> pa.RecordBatch:
    """LEDGER_FILE of some rows, with the columns that they need besides."""
    wide = [file_row(row) for row in rows]
    more = [field for field in (OTHER_USAGE, AMENDS) if any(row[field.name] for row in wide)]
    return pa.RecordBatch.from_pylist(wide, schema=pa.schema([*LEDGER_FILE, *more]))


def read(path: Path, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """A sealed file as LEDGER_AMENDED."""
    with LedgerFile(path) as file:
        yield from file.batches(rows)
