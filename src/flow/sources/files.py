"""Event files: NDJSON (plain or gzip), Parquet and Arrow IPC, one after the other in the order of their names.

A file belongs to one of a fixed number of readers by a hash of its path, so that files which arrive later do not
change whose the others are. A reader goes through its files one by one: read side by side, the newest would push the
watermark past the oldest. The snapshot holds, for each file, how far it was read and how long it was then; a file
that has grown is read on, one that has shrunk or begins differently is refused.
"""

import glob
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.inputs import FixedPartitionedSource

from ..errors import RejectReason, SourceError
from ..state.manifest import seal, unseal
from ..steps.batches import Columns, Lines, Unreadable
from .ahead import Ahead
from .pausing import Flow, Item, PausingPartition

MANIFEST = "files"
CHUNK_BYTES = 16 << 20
"""Bytes of NDJSON that go to the decoder at once."""
LINE_END_BYTES = 64 << 10
"""How much of the end of these is searched for a line's end."""
LINE_BYTES_MAX = 256 << 20
"""A line longer than this is not kept whole: its row in rejected_events holds this much of it."""
HEAD_BYTES = 4096
"""How much of a file's beginning tells it from another that has taken its name."""

Format = Literal["ndjson", "parquet", "arrow"]
_SUFFIXES: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".log": "ndjson",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


def format_of(path: Path, given: str) -> Format:
    """How to read a file: as the config says, or by its suffix. Raises SourceError."""
    suffix = (path.suffixes[-2:-1] or [""])[0] if path.suffix == ".gz" else path.suffix
    found = _SUFFIXES.get(suffix.lower()) if given == "auto" else given
    if found is None:
        raise SourceError(f"{path}: its suffix does not tell its format; set source.format to ndjson, parquet or arrow")
    if path.suffix == ".gz" and found != "ndjson":
        raise SourceError(f"{path}: {found} files are compressed within; unpack it first")
    return found  # type: ignore[return-value]


def find_files(patterns: tuple[str, ...]) -> list[Path]:
    """Every file that the patterns match, without repeats, in the order of their names. Raises SourceError."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]  # noqa: PTH207 - sees dots
        if not matches:
            raise SourceError(f"{pattern}: no such file; look at source.path in the config")
        found.update(dict.fromkeys(matches))
    return [Path(path) for path in found]


@dataclass(slots=True)
class Progress:
    """How far one file was read."""

    position: int
    """Bytes of text, or rows."""
    size: int
    """Bytes of the file at that time."""
    head: int
    """CRC-32 of its first `head_bytes` bytes."""
    head_bytes: int
    done: bool


class FilesSource(FixedPartitionedSource[Item, bytes]):
    """Reads every file to its end, then ends.

    `prepare` is done to each item on a thread of the reader, ahead of the dataflow.
    """

    def __init__(
        self,
        patterns: tuple[str, ...],
        format: str,
        readers: int,
        batch_rows: int,
        flow: Flow,
        prepare: Callable[[Item], Item],
    ) -> None:
        self._files = find_files(patterns)
        self._format = format
        self._readers = readers
        self._batch_rows = batch_rows
        self._flow = flow
        self._prepare = prepare
        for path in self._files:
            format_of(path, format)

    def list_parts(self) -> list[str]:
        return [f"reader-{number:03d}" for number in range(self._readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        number = int(for_part.rpartition("-")[2])
        mine = [path for path in self._files if zlib.crc32(str(path).encode()) % self._readers == number]
        kept: dict[str, Any] = {}
        if resume_state is not None:
            kept = unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}")["files"]
        progress = {name: Progress(*fields) for name, fields in kept.items()}
        items = Ahead(_all(mine, self._format, progress, self._batch_rows), self._prepared, self._readers)
        return _Reader(items, progress, self._flow, leads=number == 0)

    def _prepared(self, item: Item | None) -> Item | None:
        return None if item is None else self._prepare(item)


def read_files(paths: list[Path], format: str, batch_rows: int) -> Iterator[Lines | Columns | Unreadable]:
    """All that the files hold, from beginning to end, outside of a job. Raises SourceError."""
    found = _all(paths, format, {}, batch_rows)
    return (item for item, _ in found if isinstance(item, Lines | Columns | Unreadable))


ReadSoFar = tuple[str, Progress]
"""A file, and how far it is read."""
ItemsAhead = Ahead[Item | None, Item | None, ReadSoFar]
"""None: the file is done."""


class _Reader(PausingPartition[Item]):
    def __init__(self, items: ItemsAhead, progress: dict[str, Progress], flow: Flow, *, leads: bool) -> None:
        super().__init__(flow, leads=leads)
        self._progress = progress
        self._items = items

    def read(self) -> list[Item] | None:
        while True:
            read = self._items.take()
            if read is None:
                return None
            item, (name, self._progress[name]) = read
            if item is not None:
                return [item]

    def close(self) -> None:
        self._items.close()

    def snapshot(self) -> bytes:
        files = {name: [p.position, p.size, p.head, p.head_bytes, p.done] for name, p in self._progress.items()}
        return seal(MANIFEST, {"files": files})


def _all(
    files: list[Path], format: str, progress_before: dict[str, Progress], batch_rows: int
) -> Iterator[tuple[Item | None, ReadSoFar]]:
    """What the files hold; behind each, None: it is done."""
    for path in files:
        name = str(path)
        try:
            size = path.stat().st_size
            if (before := progress_before.get(name)) is not None:
                _check_same(path, before, size)
                if before.done and before.size == size:
                    continue
                progress = replace(before)
            else:
                head = _head(path, HEAD_BYTES)
                progress = Progress(0, 0, zlib.crc32(head), len(head), False)
            for item in _read(path, format_of(path, format), progress, batch_rows):
                yield item, (name, replace(progress))
            yield None, (name, replace(progress, size=size, done=True))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _head(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def _check_same(path: Path, progress: Progress, size: int) -> None:
    if size < progress.size or zlib.crc32(_head(path, progress.head_bytes)) != progress.head:
        raise SourceError(
            f"{path}: is not the file that was read before (it has shrunk, or begins differently); give the new file a "
            "name of its own, or put the old one back"
        )


def _read(path: Path, format: Format, progress: Progress, batch_rows: int) -> Iterator[Item]:
    reader: Callable[[Path, Progress, int], Iterator[Item]] = {
        "ndjson": _read_lines,
        "parquet": _read_parquet,
        "arrow": _read_arrow,
    }[format]
    try:
        yield from reader(path, progress, batch_rows)
    except pa.ArrowException as error:
        raise SourceError(f"{path}: cannot be read as {format}: {str(error).splitlines()[0]}") from error


# ---- Lines --------------------------------------------------------------------------------------------------------


def _read_lines(path: Path, progress: Progress, batch_rows: int) -> Iterator[Item]:
    origin, position = str(path), progress.position
    held = bytearray()  # the beginning of a line whose end is still to come
    skipping = False  # within the rest of a line whose beginning was too long already
    damage = ""
    for chunk in _chunks(path, position):
        if isinstance(chunk, str):
            damage = chunk
            break
        if skipping:
            dropped = chunk.find(b"\n") + 1 or len(chunk)
            skipping = not chunk[:dropped].endswith(b"\n")
            position += dropped
            progress.position = position
            chunk = chunk[dropped:]
        end = chunk.rfind(b"\n") + 1
        if end:
            data = chunk if end == len(chunk) and not held else bytes(held) + chunk[:end]
            held = bytearray(chunk[end:])
            progress.position = position + len(data)
            yield Lines(origin, position, data)
            position += len(data)
            continue
        held += chunk
        if len(held) > LINE_BYTES_MAX:
            progress.position = position + len(held)
            detail = f"a line of more than {LINE_BYTES_MAX} bytes; its first {LINE_BYTES_MAX} are kept"
            yield Unreadable(origin, position, bytes(held[:LINE_BYTES_MAX]), RejectReason.OVERSIZED, detail)
            position, held, skipping = progress.position, bytearray(), True
    if held or damage:
        progress.position = position + len(held)
        if damage:
            yield Unreadable(origin, position, bytes(held), RejectReason.TRUNCATED_INPUT, damage)
        else:
            yield Lines(origin, position, bytes(held))


def _chunks(path: Path, position: int) -> Iterator[bytes | str]:
    """The text of a file from `position` on; a string, last, says that and why the rest cannot be read."""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            while chunk := file.read(_to_line_end(file, position)):
                yield chunk
                position += len(chunk)
        return
    skip = position
    for text in _gunzip(path):
        if isinstance(text, str):
            yield text
        elif skip >= len(text):
            skip -= len(text)
        else:
            yield text[skip:]
            skip = 0


def _to_line_end(file: BufferedReader, position: int) -> int:
    """How many bytes to read from `position` on so that they end with a line, and nothing of them is copied again; the
    file is left there."""
    before = max(CHUNK_BYTES - LINE_END_BYTES, 0)
    file.seek(position + before)
    end = file.read(CHUNK_BYTES - before).rfind(b"\n")
    file.seek(position)
    return CHUNK_BYTES if end < 0 else before + end + 1


def _gunzip(path: Path) -> Iterator[bytes | str]:
    """Unpacks all members of a gzip file in pieces of CHUNK_BYTES. Raises SourceError if it is no gzip file at all."""
    packed_position = 0
    with path.open("rb") as file:
        member = zlib.decompressobj(wbits=31)
        begun = False
        rest = b""
        while True:
            packed = rest or file.read(1 << 20)
            rest = b""
            if not packed:
                if begun:
                    yield f"the gzip stream ends at byte {packed_position} of the file, before its end mark"
                return
            try:
                text = member.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                if not begun and not packed_position:
                    raise SourceError(f"{path}: not a gzip file ({error}); rename it or pack it again") from error
                yield f"the gzip stream is damaged before byte {packed_position + len(packed)} of the file ({error})"
                return
            begun = True
            rest = member.unconsumed_tail
            packed_position += len(packed) - len(rest)
            if text:
                yield text
            if member.eof:
                rest = member.unused_data
                packed_position -= len(rest)
                member, begun = zlib.decompressobj(wbits=31), False


# ---- Columns ------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, progress: Progress, batch_rows: int) -> Iterator[Item]:
    with pq.ParquetFile(path, memory_map=True) as probe:
        schema = probe.schema_arrow
    text = [
        f.name for f in schema if f.name != "id" and (pa.types.is_string(f.type) or pa.types.is_large_string(f.type))
    ]
    with pq.ParquetFile(path, memory_map=True, read_dictionary=text) as file:
        row = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row + rows > progress.position:
                # Without Arrow's own threads: reading has one already, and they cost the other cores a tenth of it.
                batches = file.iter_batches(batch_rows, row_groups=[group], use_threads=False)
                yield from _slices(path, row, batches, progress, batch_rows)
            row += rows


def _read_arrow(path: Path, progress: Progress, batch_rows: int) -> Iterator[Item]:
    with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        yield from _slices(path, 0, batches, progress, batch_rows)


def _slices(
    path: Path, row: int, batches: Iterator[pa.RecordBatch], progress: Progress, batch_rows: int
) -> Iterator[Item]:
    """Cuts batches to size, without the rows that were read before."""
    for batch in batches:
        for start in range(0, batch.num_rows, batch_rows):
            part = batch.slice(start, batch_rows)
            first, end = row + start, row + start + part.num_rows
            if end <= progress.position:
                continue
            read_before = max(progress.position - first, 0)
            progress.position = end
            yield Columns(str(path), first + read_before, part.slice(read_before))
        row += batch.num_rows
