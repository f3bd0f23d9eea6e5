"""python -m tests.faults.full_disks FOLDER: fills real file systems under a job, one after the other.

To be run where it may mount: `unshare --map-root-user --mount`, after which the mounts are gone. Prints what each run
said, as JSON by place; fails where the run on the same file system with room is not exact.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import Pipeline, balance, make_events

from flow.errors import TallyflowError
from flow.store.client import engine_kept, release_engine

EVENTS = make_events(500)
PLACES = {"state": 150, "state/shards": 8, "ledger": 12, "store": 700}
"""What gets a file system of its own, and its size in KiB, which is too little for all of a run."""


def filled(folder: Path, place: str, size_kib: int) -> str:
    """What the run said that met the full disk."""
    pipeline = Pipeline(folder)
    pipeline.write("events.parquet", EVENTS)
    pipeline.config()
    mounted, kept = folder / place, folder / "kept"
    if mounted.exists():
        mounted.rename(kept)
    mounted.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "none", mounted]
    subprocess.run([*mount, "-o", f"size={size_kib}k"], check=True)
    if kept.exists():
        shutil.copytree(kept, mounted, symlinks=True, dirs_exist_ok=True)
    try:
        pipeline.run()
        said = "nothing"
    except TallyflowError as stopped:
        said = str(stopped)
    release_engine()
    subprocess.run([*mount, "-o", "remount,size=1g"], check=True)
    assert pipeline.run().balance == balance(accepted=len(EVENTS)), place
    release_engine()
    return said


if __name__ == "__main__":
    root = Path(sys.argv[1])
    with engine_kept():
        print(
            json.dumps({place: filled(root / place.replace("/", "-"), place, size) for place, size in PLACES.items()})
        )
