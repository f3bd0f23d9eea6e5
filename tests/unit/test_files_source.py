"""How far readers of files run ahead of the dataflow."""

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from flow.sources.ahead import AHEAD
from flow.sources.files import FilesSource
from flow.sources.pausing import Flow, Item


def source(folder: Path, readers: int, seen: list[Item]) -> FilesSource:
    table = pa.table({"id": pa.array([str(n) for n in range(100)])})
    with pa.OSFile(str(folder / "events.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)

    def prepare(item: Item) -> Item:
        seen.append(item)
        return item

    flow = Flow(threading.Event(), lambda: False)
    return FilesSource((str(folder / "events.arrow"),), "arrow", readers, 10, flow, prepare)


@pytest.mark.parametrize(("readers", "ahead"), [(1, AHEAD), (AHEAD, 1), (AHEAD + 1, 0), (256, 0)])
def test_all_readers_together_hold_a_few_items_ahead(tmp_path: Path, readers: int, ahead: int) -> None:
    # Given a file of ten items, and the one of the readers whose it is.
    seen: list[Item] = []
    files = source(tmp_path, readers, seen)
    parts = [files.build_part("source", name, None) for name in files.list_parts()]
    for part in parts:
        for item in part._items._next:
            item.result()
    # Then so many were read before anybody asked,
    assert len(seen) == ahead
    # and all come, in order, however many that is.
    items = [item for part in parts for more in iter(part.read, None) for item in more]
    assert items == seen
    assert [item.row for item in items] == list(range(0, 100, 10))
