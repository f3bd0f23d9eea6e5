"""The kernel of rules: which checks of a rule book each event fails."""

from typing import NamedTuple

import pyarrow as pa

from _core import checks as _checks

from . import _address, _codes, _usage

ValueTable = _checks.ValueTable
MakeChecks = _checks.CheckTable
CHECKS_MAX = _checks.CHECKS_MAX
MEMBER, RANGE, SUM, SPEED, CLOCK = _checks.MEMBER, _checks.RANGE, _checks.SUM, _checks.SPEED, _checks.CLOCK


class CheckTable(NamedTuple):
    """At most CHECKS_MAX checks of a rule book; see `_core/checks.pyx`."""

    table: MakeChecks
    columns: list[tuple[str, ValueTable, int, int]]
    """Name, its values, the checks to which it does not matter, those that concern values outside their set."""
    meters: dict[str, tuple[int, int, int]]
    """The checks that bound a meter's quantity, to which it tells what others add up to, and that add it up."""

    def failed(self, events: pa.RecordBatch, now_us: int) -> tuple[pa.UInt32Array, pa.UInt64Array]:
        """The rows of EVENTS that fail a check, in order, and one bit for each that they fail."""
        usage, rows = _usage(events), events.num_rows
        columns, held = [], []
        for name, values, always, flipped in self.columns:
            column = events.column(name)
            _, offsets, data = column.dictionary.buffers()
            count, start = len(column.dictionary), 4 * column.dictionary.offset
            held.append(masks := pa.allocate_buffer(8 * count))
            if count:
                values.masks(offsets.address + start, _address(data), count, always, flipped, masks.address)
            columns.append((_codes(column), masks.address, count))
        times, found = events.column("event_time_us").buffers()[1], [pa.allocate_buffer(w * rows) for w in (4, 8)]
        of_meters = [self.meters.get(name, (0, 0, 0)) for name in usage.names.to_pylist()]
        lists, out = (usage.offsets, usage.meters, usage.quantities), [buffer.address for buffer in found]
        count = self.table.failed(rows, _address(times), columns, *lists, of_meters, now_us, out[0], out[1])
        failing = pa.Array.from_buffers(pa.uint32(), count, [None, found[0]])
        return failing, pa.Array.from_buffers(pa.uint64(), count, [None, found[1]])
