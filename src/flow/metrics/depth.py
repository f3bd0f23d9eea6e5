"""How much waits in an outbox, as its folder shows it: the same for the job and for whoever looks from outside."""

import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Depth:
    """Blocks that the store does not have yet, cut or frozen."""

    blocks: int
    bytes: int
    age_s: float
    """Since the oldest was cut; 0: there is none."""


def outbox_depth(folder: Path, writers: Collection[str] | None = None) -> Depth:
    """What waits of these writers; None: of all. A folder that is not there holds nothing."""
    blocks = size = 0
    oldest_s: float | None = None
    prefixes = None if writers is None else tuple(f"{writer}-" for writer in writers)
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if prefixes is not None and not entry.name.startswith(prefixes):
                continue
            with suppress(FileNotFoundError):  # published in between
                if entry.name.endswith(".json"):
                    blocks += 1
                    cut_s = entry.stat().st_mtime
                    oldest_s = cut_s if oldest_s is None else min(oldest_s, cut_s)
                elif entry.name.endswith(".arrow"):
                    size += entry.stat().st_size
    return Depth(blocks, size, max(time.time() - oldest_s, 0.0) if oldest_s is not None else 0.0)
