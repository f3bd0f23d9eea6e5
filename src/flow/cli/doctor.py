"""`tallyflow doctor`: whether a set-up can run, what is wrong with it, and how to mend it."""

import glob
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from ..config import Config, FilesSource, KafkaSource, LedgerSource, SyntheticSource, load_config
from ..errors import RefusedStart, StoreError, TallyflowError
from .options import Format, FormatOption

BYTEWAX_VERSION = "0.21.1"
"""Exactly once rests on how this version commits epochs; another one has to be proved first."""

FREE_BYTES_MIN = 2**30

State = Literal["ok", "warn", "fail"]
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class Check:
    """One line of the answer."""

    check: str
    state: State
    detail: str
    mend: str = ""


def doctor(
    config: Annotated[Path, typer.Option("--config", "-c", help="The config file to check.")],
    format_: FormatOption = Format.TABLE,
) -> None:
    """Checks versions, the config, prices, rules, source, folders and store. Exit code 1 if anything fails."""
    checks = list(examine(config))
    if format_ is Format.JSON:
        typer.echo(json.dumps([asdict(check) for check in checks]))
    else:
        _print_table(checks)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


def examine(path: Path) -> Iterator[Check]:
    """All checks in order; those that need a valid config are left out where there is none."""
    yield _python()
    yield _package("bytewax", BYTEWAX_VERSION)
    yield _package("chdb")
    yield _package("clickhouse-connect")
    yield _kernels()
    try:
        config = load_config(path)
    except TallyflowError as error:
        for line in str(error).splitlines():
            yield _failure("config", line)
        return
    yield Check("config", "ok", f"{path}: valid")
    yield _guarded("prices", lambda: _prices(config))
    if config.rules is not None:
        rules = config.rules
        yield _guarded("rules", lambda: _rules(rules))
    yield _guarded("source", lambda: _source(config))
    yield _guarded("state_dir", lambda: _folder("state_dir", config.state_dir, config.limits.outbox_bytes_max))
    if config.ledger is not None:
        ledger = config.ledger
        yield _guarded("ledger", lambda: _folder("ledger", ledger, FREE_BYTES_MIN))
    yield _guarded("lock", lambda: _lock(config))
    yield _guarded("store", lambda: _store(config))


def _print_table(checks: list[Check]) -> None:
    table = Table("", "check", "found", "how to mend it")
    for check in checks:
        state = f"[{_COLOURS[check.state]}]{check.state}[/]"
        table.add_row(state, check.check, _plain(check.detail), _plain(check.mend))
    Console().print(table)


def _plain(text: str) -> str:
    """Text that rich takes as it is: `prices[3]` is no markup."""
    return text.replace("[", r"\[")


def _failure(check: str, message: str) -> Check:
    """Messages are written `what is wrong; what to do`."""
    detail, _, mend = message.partition("; ")
    return Check(check, "fail", detail, mend)


def _guarded(check: str, examine_one: Callable[[], Check]) -> Check:
    try:
        return examine_one()
    except TallyflowError as error:
        return _failure(check, "; ".join(str(error).splitlines()))
    except OSError as error:
        return Check(check, "fail", f"{error.filename or check}: {error.strerror}", "mend the path or its permissions")


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return Check("python", "ok", found)
    return Check("python", "fail", found, "use Python 3.11 or 3.12")


def _package(name: str, wanted: str | None = None) -> Check:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "fail", "not installed", f"pip install {name}{'==' + wanted if wanted else ''}")
    if wanted is not None and found != wanted:
        return Check(name, "fail", f"{found} is not {wanted}", f"pip install {name}=={wanted}")
    return Check(name, "ok", found)


def _kernels() -> Check:
    try:
        importlib.import_module("flow.kernels")
    except ImportError as error:
        return Check("kernels", "fail", str(error).partition("; ")[0], "make build")
    return Check("kernels", "ok", "built from the sources beside them")


def _prices(config: Config) -> Check:
    from ..prices.book import load_price_book

    book = load_price_book(config.prices, config.limits.quantity_max)
    if not book.prices:
        return Check("prices", "warn", f"{config.prices}: no prices", "add some, or every quantity is unpriced")
    return Check("prices", "ok", f"{len(book.prices)} prices of {len(book.meters)} meters, {book.currency}")


def _rules(path: Path) -> Check:
    from ..rules.book import load_rule_book
    from ..rules.examples import failed_examples

    book = load_rule_book(path)
    if failed := failed_examples(book):
        told = f"{path}: line {failed[0].line}: example of {failed[0].rule}: {failed[0].message}"
        return Check("rules", "fail", told, "mend the rule or its example; `tallyflow rules test` tells all")
    return Check("rules", "ok", f"{len(book.rules)} rules, {len(book.lists)} lists")


def _source(config: Config) -> Check:
    source = config.source
    if isinstance(source, SyntheticSource):
        from ..generate import Synthetic

        return Check("source", "ok", f"{Synthetic(**source.given()).events:,} synthetic events")
    if isinstance(source, FilesSource):
        return _files(source.path, "change source.path")
    if isinstance(source, KafkaSource):
        return _kafka(source)
    assert isinstance(source, LedgerSource)  # the one kind that is left
    folder = source.path or config.ledger
    return _files((f"{glob.escape(str(folder))}/**/*.parquet",), "change source.path, or fill the ledger first")


def _kafka(source: KafkaSource) -> Check:
    from ..sources.kafka_client import LOOK_S, Cluster

    found = Cluster(source).topics(LOOK_S)
    if missing := [name for name, topic in found.items() if topic is None]:
        return Check("source", "fail", f"Kafka topic {missing[0]}: is not there", "make it, or change source.topic")
    partitions = sum(len(topic.partitions) for topic in found.values() if topic is not None)
    return Check("source", "ok", f"{partitions} partitions of {len(found)} Kafka topics")


def _files(patterns: tuple[str, ...], mend: str) -> Check:
    paths: list[Path] = []
    for pattern in patterns:
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - patterns are absolute
        if not found:
            return Check("source", "fail", f"{pattern}: no such file", mend)
        paths.extend(found)
    unreadable = [path for path in paths if not (path.is_file() and os.access(path, os.R_OK))]
    if unreadable:
        return Check("source", "fail", f"{unreadable[0]}: not a readable file", "chmod, or change source.path")
    size_bytes = sum(path.stat().st_size for path in paths)
    return Check("source", "ok", f"{len(paths)} files, {size_bytes:,} bytes")


def _folder(check: str, folder: Path, free_bytes_min: int) -> Check:
    """Whether a folder can be written, or made where the first parent that is there can be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return Check(check, "fail", f"{there}: is a file", f"name another folder in `{check}:`")
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(check, "fail", f"{there}: not writable", f"chmod, or name another folder in `{check}:`")
    free_bytes = shutil.disk_usage(there).free
    detail = f"{folder}: {free_bytes >> 20:,} MiB free"
    if free_bytes < free_bytes_min:
        return Check(check, "warn", detail, f"{free_bytes_min >> 20:,} MiB may be needed; make room")
    return Check(check, "ok", detail)


def _lock(config: Config) -> Check:
    """Whether a job could start here: nobody holds the directory, and it was begun with the same shards."""
    from ..state.directory import StateDirectory

    if not (config.state_dir / "LOCK").exists():
        return Check("lock", "ok", "no run yet")
    with StateDirectory(config.state_dir) as directory:
        lineage = directory.existing_lineage()
    if lineage is not None and lineage.shards != config.shards:
        detail = f"{config.state_dir}: was begun with shards: {lineage.shards}, the config says {config.shards}"
        return Check("lock", "fail", detail, "change it back, or begin anew with another state_dir and store")
    return Check("lock", "ok", "free")


def _store(config: Config) -> Check:
    from ..store import check_schema, connect
    from ..store.requirements import VERSION_TESTED, check_server, server_version

    store = config.store
    if store.path is not None:
        folder = _folder("store", store.path, FREE_BYTES_MIN)
        if folder.state != "ok":
            return folder
        if not store.path.exists() or not any(store.path.iterdir()):
            return Check("store", "ok", f"{store.url}: the first run makes it")
    if store.kind == "clickhouse":
        with connect(store) as writer:
            found = server_version(writer)
            if found < VERSION_TESTED:
                version, wanted = (".".join(map(str, parts)) for parts in (found, VERSION_TESTED))
                detail = f"{store.url}: ClickHouse {version} is older than our tests, which run on {wanted}"
                return Check("store", "warn", detail, f"upgrade ClickHouse to {wanted}")
            check_server(writer)
    with connect(store, readonly=True) as client:
        version = client.rows("SELECT version()")[0][0]
        try:
            check_schema(client)
        except RefusedStart:
            raise
        except StoreError as error:
            detail, _, mend = str(error).partition("; ")
            return Check("store", "warn", detail, mend)
    return Check("store", "ok", f"{store.url}: ClickHouse {version}")
