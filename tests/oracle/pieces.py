"""Pieces of Parquet as Arrow's own writer makes them, which is how older versions wrote the ledger."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq


class _End:
    """A file as Arrow sees it, which counts places from the first byte that it has written."""

    closed = False

    def __init__(self) -> None:
        self.kept = bytearray()
        self.keeps = True

    def write(self, piece: bytes) -> int:
        if self.keeps:
            self.kept += piece
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """It has no end."""


def arrow_piece(at: int, table: pa.Table, said: Mapping[str, str]) -> bytes:
    """A piece that begins at byte `at` of its file."""
    end = _End()
    sink = pa.PythonFile(end, mode="w")
    writer = pq.ParquetWriter(sink, table.schema, store_schema=False)
    end.keeps = False
    sink.write(bytes(at))  # which Arrow counts
    end.keeps = True
    writer.write_table(table)
    writer.add_key_value_metadata(dict(said))
    writer.close()
    return bytes(end.kept)
