"""The start of a run: the state directory is locked, and its lineage claimed in the store."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from bytewax.recovery import init_db_dir

from .config import Config
from .errors import RefusedStart, StateError
from .panics import panics_explained
from .prices.book import PriceBook, load_price_book
from .state.directory import Lineage, StateDirectory
from .state.files import explain, sync_folder
from .store.client import StoreClient, connect
from .store.fence import Term, highest_term, take_term
from .store.migrate import migrate


@dataclass(frozen=True)
class Claim:
    """What makes a run the only one of its lineage."""

    lineage: Lineage
    term: Term
    last_blocks: dict[str, int]
    """The last block that the store has of each writer."""


@dataclass(frozen=True)
class Start:
    """A run whose state directory is locked."""

    config: Config
    book: PriceBook
    directory: StateDirectory
    _claiming: "Future[Claim]"

    def claim(self) -> Claim:
        """Waits for the store. Raises RefusedStart, TakenOver, StateError, StoreError."""
        return self._claiming.result()


@contextmanager
def starting(config: Config) -> Iterator[Start]:
    """While inside, the state directory is locked. The store's tables are made, and the lineage is claimed, on a thread
    of its own: half a second if the store is new, in which the caller can load what the dataflow is made of.

    Raises ConfigError, RefusedStart, StateError, StoreError.
    """
    if config.reconcile is not None:
        from .reconcile.in_job import refuse_two_embedded  # much to load for what few jobs have

        refuse_two_embedded(config)
    book = load_price_book(config.prices, config.limits.quantity_max)
    with StateDirectory(config.state_dir) as directory, ThreadPoolExecutor(1, "claim") as thread:
        lineage = _made(config, directory, book.currency)
        client = connect(config.store)
        yield Start(config, book, directory, thread.submit(_claim, client, config, directory, lineage))


def prepare(config: Config, directory: StateDirectory, currency: str) -> Claim:
    """Makes what is missing of a locked state directory and of its store, and takes over the lineage.

    Raises RefusedStart, TakenOver, StateError, StoreError.
    """
    lineage = _made(config, directory, currency)
    return _claim(connect(config.store), config, directory, lineage)


def _made(config: Config, directory: StateDirectory, currency: str) -> Lineage:
    """The lineage of a locked state directory, of which nothing is missing then."""
    lineage = directory.lineage(config.shards, currency, config.dedup.horizon_us)
    _make_recovery_store(directory, config.shards)
    return lineage


def open_store(config: Config) -> StoreClient:
    """A connection to the store of a config, within its database. Raises StoreError."""
    client = connect(config.store)
    client.use_database()
    return client


def _claim(client: StoreClient, config: Config, directory: StateDirectory, lineage: Lineage) -> Claim:
    """Makes the tables, refuses a store and a state directory that do not belong together, takes over the lineage.

    Closes the client.
    """
    with client:
        migrate(client)
        client.use_database()
        known = {row[0] for row in client.rows("SELECT lineage FROM lineages")}
        if known - {lineage.id}:
            raise RefusedStart(
                f"store {config.store.url}: holds what another state directory published (lineage "
                f"{', '.join(sorted(known - {lineage.id}))}), while {directory.path} is lineage {lineage.id}; going on "
                "would count events twice: use the state_dir that belongs to the store, or an empty store"
            )
        if lineage.id in known:
            # First the term, then the blocks: with the term taken, nobody else adds any.
            term = _take_term(client, directory, lineage)
            return Claim(lineage, term, _last_blocks(client, lineage))
        if (directory.path / "committed").exists():
            raise RefusedStart(
                f"store {config.store.url}: holds nothing of lineage {lineage.id}, which {directory.path} has "
                "published already; was the store emptied or replaced? Bring it back, or begin anew with an empty "
                "state_dir too"
            )
        client.command(
            "INSERT INTO lineages (lineage, created, state_dir, currency) VALUES "
            "({lineage:String}, now64(6), {state_dir:String}, {currency:String})",
            {"lineage": lineage.id, "state_dir": str(directory.path), "currency": lineage.currency},
        )
        return Claim(lineage, _take_term(client, directory, lineage), {})


def _take_term(client: StoreClient, directory: StateDirectory, lineage: Lineage) -> Term:
    """Takes the next term; refuses a state directory without which one was taken since it was last used: an old copy.

    Blocks cannot tell that: a process that was replaced may have cut more of them than its successor. The directory
    learns of a term before the store does, so that a crash between the two does no harm. Raises StateError.
    """
    known, highest = directory.term(), highest_term(client, lineage.id)
    if highest > known:
        raise StateError(
            f"{directory.path}: is older than the store: it knows of term {known} of lineage {lineage.id}, and "
            f"somebody has taken term {highest} with another state directory; this one is an old copy: start the one "
            "that was used last"
        )
    directory.keep_term(highest + 1)
    return take_term(client, lineage.id)


def _last_blocks(client: StoreClient, lineage: Lineage) -> dict[str, int]:
    found = client.rows(
        "SELECT writer, max(block) FROM pipeline_balance WHERE lineage = {lineage:String} GROUP BY writer",
        {"lineage": lineage.id},
    )
    return {str(writer): int(block) for writer, block in found}


def _make_recovery_store(directory: StateDirectory, partitions: int) -> None:
    """Makes Bytewax's recovery store, if there is none; its number of partitions can never change."""
    folder = directory.recovery
    if folder.exists():
        for path in (folder / f"part-{number}.sqlite3" for number in range(partitions)):
            if not path.exists():
                raise StateError(f"{path}: missing; restore it from a backup, or start a new lineage")
    try:
        if not folder.exists():
            making = folder.with_name("recovery.tmp")
            making.mkdir(parents=True, exist_ok=True)
            for leftover in making.iterdir():
                leftover.unlink()
            with panics_explained(making):
                init_db_dir(making, partitions)
            making.rename(folder)
            sync_folder(folder.parent)  # undone by a power loss, it would have everything counted again
    except OSError as error:
        raise explain(error, folder, "make the recovery store") from error
