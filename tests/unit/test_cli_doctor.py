"""Goal: each part of a set-up that cannot run is named, with a mend. The store is a fake here."""

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import typer

import flow.store.requirements
from flow.cli import doctor as room
from flow.cli.doctor import Check, doctor, examine
from flow.cli.init import init
from flow.cli.options import Format
from flow.errors import RefusedStart, StoreError
from flow.state.directory import StateDirectory


class FakeClient:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        assert sql == "SELECT version()"
        return [("26.9",)]


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_kernels", lambda: Check("kernels", "ok", "built"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    init(tmp_path)
    return tmp_path / "config.yaml"


def states(config: Path) -> dict[str, str]:
    return {check.check: check.state for check in examine(config)}


def the(check: str, config: Path) -> Check:
    (found,) = [one for one in examine(config) if one.check == check]
    return found


def change(config: Path, old: str, new: str) -> None:
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def test_a_fresh_set_up_passes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(config.parent.rglob("*"))
    doctor(config, Format.JSON)
    found = json.loads(capsys.readouterr().out)
    assert {one["state"] for one in found} == {"ok"}
    assert [one["check"] for one in found][-5:] == ["source", "state_dir", "ledger", "lock", "store"]
    assert sorted(config.parent.rglob("*")) == before


def test_a_failure_is_exit_code_1_and_in_the_table(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "prices.yaml").write_text('currency: USD\nprices:\n  - {meter: [x], price: "1"}\n')
    with pytest.raises(typer.Exit) as caught:
        doctor(config, Format.TABLE)
    assert caught.value.exit_code == 1
    assert "prices[0]" in capsys.readouterr().out.replace("\n", "")


def test_a_config_that_does_not_load(config: Path) -> None:
    config.write_text("epoch: 5x")
    assert [check.detail for check in examine(config) if check.check == "config"][-1].endswith("is not a duration")
    assert "source" not in states(config)


def break_source(config: Path) -> None:
    (config.parent / "events" / "sample.ndjson").unlink()


def break_source_with_folder(config: Path) -> None:
    (config.parent / "events" / "folder.ndjson").mkdir()


def break_prices(config: Path) -> None:
    (config.parent / "prices.yaml").unlink()


def break_state_dir(config: Path) -> None:
    (config.parent / "run").mkdir()
    (config.parent / "run" / "state").touch()


def break_ledger(config: Path) -> None:
    (config.parent / "run").mkdir()
    (config.parent / "run" / "ledger").touch()


def break_store(config: Path) -> None:
    (config.parent / "store").touch()
    change(config, "chdb:run/store", "chdb:store/below")


@pytest.mark.parametrize(
    ("check", "break_it", "detail", "mend"),
    [
        ("source", break_source, "events/*.ndjson: no such file", "change source.path"),
        (
            "source",
            break_source_with_folder,
            "folder.ndjson: not a readable file",
            "chmod, or change source.path",
        ),
        ("prices", break_prices, "prices.yaml: no such file", ""),
        ("state_dir", break_state_dir, "run/state: is a file", "name another folder in `state_dir:`"),
        ("ledger", break_ledger, "run/ledger: is a file", "name another folder in `ledger:`"),
        ("store", break_store, "store: is a file", "name another folder in `store:`"),
    ],
)
def test_what_is_broken_is_named(
    config: Path, check: str, break_it: Callable[[Path], None], detail: str, mend: str
) -> None:
    break_it(config)
    found = the(check, config)
    assert (found.state, found.mend) == ("fail", mend)
    assert found.detail.endswith(detail)


def test_sources_without_files(config: Path) -> None:
    change(config, "kind: files ", "kind: synthetic ")
    change(config, "  path: events/*.ndjson     #", "  events: 1000 #")
    assert the("source", config).detail == "1,000 synthetic events"
    change(config, "  events: 1000 #", "  models: 0 #")
    assert "synthetic.models" in the("source", config).detail
    change(config, "kind: synthetic ", "kind: ledger ")
    change(config, "  models: 0 #", "#")
    assert the("source", config).detail.endswith("run/ledger/**/*.parquet: no such file")


def test_no_prices_and_little_room_are_warnings(config: Path) -> None:
    (config.parent / "prices.yaml").write_text("currency: USD\nprices: []\n")
    change(config, "# limits:", "limits: {outbox_bytes_max: 1000TiB}\n#")
    assert the("prices", config).state == "warn"
    assert the("state_dir", config).state == "warn"


def test_a_state_directory_in_use(config: Path) -> None:
    with StateDirectory(config.parent / "run" / "state"):
        found = the("lock", config)
        assert found.state == "fail"
        assert "in use by pid" in found.detail
    assert the("lock", config).state == "ok"


def test_a_state_directory_of_other_shards(config: Path) -> None:
    with StateDirectory(config.parent / "run" / "state") as directory:
        directory.lineage(4, "USD", None)
    found = the("lock", config)
    assert found.state == "fail"
    assert found.detail.endswith("was begun with shards: 4, the config says 1")


@pytest.fixture
def store_error(monkeypatch: pytest.MonkeyPatch, config: Path) -> Iterator[list[Exception]]:
    """A store that is there; the fixture's list, if filled, is what checking its schema raises."""
    errors: list[Exception] = []

    def check_schema(_: FakeClient) -> None:
        if errors:
            raise errors[0]

    (config.parent / "run" / "store" / "data").mkdir(parents=True)
    monkeypatch.setattr(flow.store, "connect", lambda store, readonly: FakeClient())
    monkeypatch.setattr(flow.store, "check_schema", check_schema)
    yield errors


def test_an_empty_folder_is_a_store_to_be(config: Path) -> None:
    (config.parent / "run" / "store").mkdir(parents=True)
    assert the("store", config).detail.endswith("run/store: the first run makes it")


def test_a_store_that_answers(config: Path, store_error: list[Exception]) -> None:
    found = the("store", config)
    assert found.state == "ok"
    assert found.detail.endswith("run/store: ClickHouse 26.9")


def test_a_store_without_tables_is_a_warning(config: Path, store_error: list[Exception]) -> None:
    store_error.append(StoreError("store s: holds no tables; run `tallyflow run` first"))
    assert the("store", config) == Check("store", "warn", "store s: holds no tables", "run `tallyflow run` first")


def test_a_store_of_a_newer_version_fails(config: Path, store_error: list[Exception]) -> None:
    store_error.append(RefusedStart("store s: newer; upgrade"))
    assert the("store", config) == Check("store", "fail", "store s: newer", "upgrade")


def test_another_bytewax_fails(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.20")
    found = the("bytewax", config)
    assert (found.state, found.mend) == ("fail", "pip install bytewax==0.21.1")


def test_a_missing_package_fails(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert the("chdb", config) == Check("chdb", "fail", "not installed", "pip install chdb")


@pytest.mark.parametrize(("found", "state"), [((24, 3), "warn"), ((26, 9), "ok"), ((27, 1), "ok")])
def test_the_version_of_a_server(
    config: Path,
    store_error: list[Exception],
    monkeypatch: pytest.MonkeyPatch,
    found: tuple[int, int],
    state: str,
) -> None:
    change(config, "chdb:run/store", "clickhouse://h/db")
    monkeypatch.setattr(flow.store, "connect", lambda store, readonly=False: FakeClient())
    monkeypatch.setattr(flow.store.requirements, "server_version", lambda client: found)
    monkeypatch.setattr(flow.store.requirements, "check_server", lambda client: None)
    check = the("store", config)
    assert check.state == state
    if state == "warn":
        assert check.detail.endswith("ClickHouse 24.3 is older than our tests, which run on 26.9")
        assert check.mend == "upgrade ClickHouse to 26.9"


def test_a_server_that_lacks_something_fails(
    config: Path, store_error: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_server(_: FakeClient) -> None:
        raise StoreError("store s: the user has no privilege INSERT; GRANT INSERT")

    change(config, "chdb:run/store", "clickhouse://h/db")
    monkeypatch.setattr(flow.store, "connect", lambda store, readonly=False: FakeClient())
    monkeypatch.setattr(flow.store.requirements, "server_version", lambda client: (26, 9))
    monkeypatch.setattr(flow.store.requirements, "check_server", check_server)
    assert the("store", config) == Check("store", "fail", "store s: the user has no privilege INSERT", "GRANT INSERT")
