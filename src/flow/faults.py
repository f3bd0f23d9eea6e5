"""Named points at which a test may end the process or raise, to show that what follows a crash there is exact.

Nothing happens at a point unless TALLYFLOW_CRASH_AT names it: `writer.cut` dies at the first pass, `writer.cut:3` at
the third. Points stand where an epoch, a block or a file is handled, never in a loop over events.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable

POINTS = (
    "shard.before_append",
    "shard.after_append",
    "writer.before_freeze",
    "writer.before_cut",
    "outbox.after_rows",
    "outbox.after_json",
    "ledger.before_append",
    "ledger.after_append",
    "ledger.before_seal",
    "ledger.after_rename",
    "writer.after_snapshot",
    "publisher.before_insert",
    "publisher.after_insert",
    "publisher.before_done",
    "publisher.after_json_gone",
    "run.before_finish",
    "run.after_finish",
)
"""Every point of a run, in the order of an epoch."""

RERATE_POINTS = (
    "rerate.begun",
    "outbox.after_rows",
    "outbox.after_json",
    "rerate.before_commit",
    "rerate.after_commit",
    "publisher.before_insert",
    "publisher.after_insert",
    "publisher.before_done",
    "publisher.after_json_gone",
    "rerate.before_done",
)
"""Every point of a re-rating, in its order."""

REDRIVE_POINTS = ("redrive.prepared", "inbox.after_key", "redrive.put", "redrive.told")
"""Every point of putting rejected events back, in its order."""

LATE_POINTS = ("late.prepared", "inbox.after_key", "late.put", "late.told")
"""Every point of billing late events, in its order."""

_passed: Counter[str] = Counter()
_lock = threading.Lock()


def _exit_at(name: str) -> None:
    wanted, _, nth = os.environ.get("TALLYFLOW_CRASH_AT", "").partition(":")
    if wanted != name:
        return
    with _lock:
        _passed[name] += 1
        if _passed[name] == int(nth or 1):
            os._exit(137)


on_point: Callable[[str], None] = _exit_at
"""What happens at a point; the simulator puts its own in."""


def point(name: str) -> None:
    """Passes a named point."""
    on_point(name)
