"""One writer: combines rated events, cuts a block with each epoch, and hands it on once its epoch is committed.

When `snapshot()` of epoch k+1 is called, epoch k is durable in Bytewax's recovery store: a property of the pinned
Bytewax on which exactly-once stands here, and which the tests keep watch on. Only then is block k frozen, and only
then does the store hear of it.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from ..errors import StateError
from ..faults import point
from ..state.beside import Beside
from ..state.ledger import LedgerWriter
from ..steps.combine import BlockBuilder, MeterTotals, add_totals
from ..steps.ledger_rows import ledger_rows
from ..steps.rate import Rated
from ..steps.watch_usage import UsageWatch
from .outbox import Block, Outbox
from .publisher import Publisher

MANIFEST = "writer"


class Writer:
    """Everything behind rating, for one writer. Knows nothing of Bytewax."""

    def __init__(
        self,
        lineage: str,
        writer: str,
        currency: str,
        outbox: Outbox,
        ledger: LedgerWriter | None,
        publisher: Publisher,
        clock: Callable[[], int],
        block_in_store: int | None = None,
        anomalies: UsageWatch | None = None,
        beside: Beside | None = None,
    ) -> None:
        """`block_in_store` is the last block that the store has of this writer, None if that is not known; `anomalies`
        finds what is out of line, None if nothing is looked for; `beside` does the work for the ledger, None: each
        piece of it at once."""
        self._lineage = lineage
        self._writer = writer
        self._builder = BlockBuilder(currency, anomalies=anomalies)
        self._outbox = outbox
        self._ledger = ledger
        self._publisher = publisher
        self._clock = clock
        self._block_in_store = block_in_store
        self._beside = beside or Beside(0)
        self._last = 0  # number of the last block that was cut
        self._cut: Block | None = None  # cut with the last snapshot, not frozen yet
        self.totals: Counter[str] = Counter()
        """The balance of the lineage so far, this writer's part of it."""
        self.quantity = 0
        """All quantities that this writer has put into blocks in the lineage so far, whatever their meter."""
        self.amount_femto = 0
        """The same of amounts, each in the unit that its meter's name tells: what the rollups must add up to."""
        self.meters: MeterTotals = {}
        """What this writer has billed in this run."""
        self.totals_before: Counter[str] = Counter()
        """The same when this run began."""

    @property
    def anomalies(self) -> Counter[str]:
        """What was found out of line in this run, by kind."""
        return self._builder.anomalies.found if self._builder.anomalies is not None else Counter()

    def resume(self, manifest: dict[str, Any] | None) -> None:
        """Goes on from the last committed snapshot.

        What may not have arrived is published again, what was not committed is dropped. Raises StateError, also
        where the store is ahead: nothing is published before it is committed here.
        """
        last = manifest["block"] if manifest else None
        self._last = last or 0
        if self._block_in_store is not None and self._last < self._block_in_store:
            raise StateError(
                f"{self._outbox.folder.parent}: is older than the store: {self._writer} is at block {self._last}, the "
                f"store has block {self._block_in_store}; is it an old copy, or did another process go on with a newer "
                "one? Use the newest state directory of this lineage, or replay the source into a new one"
            )
        self.totals = Counter(manifest["totals"] if manifest else {})
        self.totals_before = Counter(self.totals)
        self.quantity = manifest["quantity"] if manifest else 0
        self.amount_femto = manifest["amount_femto"] if manifest else 0
        # A snapshot of an older version has none; its first block then says that it is not known.
        self._builder.resume(manifest.get("watermark_us", -1) if manifest else -1)
        if self._builder.anomalies is not None and manifest and manifest.get("anomalies"):
            self._builder.anomalies.load(manifest["anomalies"])
        for block in self._outbox.resume(last, self._block_in_store):
            self._publisher.expect(block)
            self._publisher.submit(self._outbox, block)
        if self._ledger is not None:
            self._ledger.resume(manifest["ledger"] if manifest else None)

    def add(self, rated: Rated) -> None:
        """Adds a rated batch to the block. Raises OverflowStop, BalanceError, or what stopped the publisher."""
        self._publisher.check()
        self._builder.add(rated)
        rows, count = rated.judged.accepted
        ledger = self._ledger
        if ledger is not None and count:
            self._beside.begin(lambda: ledger.append(*ledger_rows(rated.judged.routed, rows, count)))

    def snapshot(self) -> dict[str, Any]:
        """Cuts the block of the epoch that ends. Raises StateError, OverflowStop."""
        point("writer.before_freeze")
        self._freeze()
        point("writer.before_cut")
        kept = self._beside.begin(self._keep)
        if not self._builder.empty:
            self.totals.update(self._builder.counts())
            number = self._last + 1
            tables = self._builder.cut(self._lineage, self._writer, number, self._clock())
            self._cut = self._outbox.cut(number, tables)
            self._publisher.expect(self._cut)
            add_totals(self.meters, self._builder.meters)
            self.quantity += sum(quantity for quantity, _, _ in self._builder.meters.values())
            self.amount_femto += sum(amount for _, amount, _ in self._builder.meters.values())
            self._builder.clear()
            self._last = number
        self._beside.wait()
        point("writer.after_snapshot")
        return {
            "lineage": self._lineage,
            "writer": self._writer,
            "block": self._last,
            "totals": dict(self.totals),
            "quantity": self.quantity,
            "amount_femto": self.amount_femto,
            "watermark_us": self._builder.watermark_us,
            "anomalies": self._builder.anomalies.dump() if self._builder.anomalies is not None else None,
            "ledger": kept.result(),
        }

    def _keep(self) -> dict[str, Any] | None:
        """The ledger's part of a snapshot."""
        return self._ledger.snapshot(self._clock()) if self._ledger is not None else None

    def finish(self) -> None:
        """The run has ended and its last snapshot is durable: nothing is left to wait for."""
        self._freeze(everything=True)
        self._beside.close()

    def _freeze(self, *, everything: bool = False) -> None:
        if self._cut is not None:
            self._publisher.submit(self._outbox, self._cut)
            self._cut = None
        ledger = self._ledger
        if ledger is not None:
            self._beside.begin(lambda: ledger.seal(everything=everything))
