"""How far the ledger's open files are committed, as the writers' last snapshots have it."""

from collections.abc import Mapping

from ..state.directory import StateDirectory
from ..state.ledger import open_name
from ..state.manifest import unseal
from ..state.recovered import last_snapshots
from .writer import MANIFEST

STEP = "tallyflow.outbox"


def committed_ledger(directory: StateDirectory) -> dict[str, int]:
    """Committed bytes of each open file, by its name; a file that is not named has none. Raises StateError.

    Beside a running job more may be committed a moment later, and files be sealed.
    """
    return committed_by(last_snapshots(directory.recovery, STEP))


def committed_by(snapshots: Mapping[str, bytes]) -> dict[str, int]:
    """The same, from the snapshots of writers by their names. Raises StateError."""
    committed = {}
    for writer, snapshot in snapshots.items():
        manifest = unseal(snapshot, MANIFEST, f"recovery store, step {STEP}, {writer}")
        for file in manifest["ledger"]["files"] if manifest["ledger"] else ():
            committed[open_name(manifest["lineage"], writer, file["number"])] = file["length"]
    return committed
