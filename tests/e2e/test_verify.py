"""`tallyflow verify` agrees with what a run made, and finds whatever was changed behind its back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flow.errors import ConfigError, RefusedStart, StateError
from flow.verify import Report, Scope, verify

from .harness import Pipeline, make_events

EVENTS = make_events(700)
MARCH = Scope(start_s=1_772_323_200, end_s=1_775_001_600)


def adding(**values: str) -> str:
    """For SELECT * REPLACE: a row of the same key that adds these values, and nothing else."""
    nothing = dict.fromkeys(["events", "digest", "q0", "q1", "q2", "q3", "a0", "a1", "a2", "a3"], "0")
    return ", ".join(f"{value} AS {name}" for name, value in (nothing | values).items())


@pytest.fixture
def billed(pipeline: Pipeline) -> Pipeline:
    pipeline.write("events.ndjson", EVENTS + EVENTS[::11])
    pipeline.run(shards=2)
    return pipeline


def checked(pipeline: Pipeline, scope: Scope | None = None) -> Report:
    return verify(pipeline.config(), scope, 1000)


def found(report: Report) -> set[tuple[str, str]]:
    return {(difference.where, difference.column) for difference in report.differences}


def test_what_a_run_made_agrees_whole_and_in_part(billed: Pipeline) -> None:
    report = checked(billed)
    assert (report.events, report.difference_count) == (len(EVENTS), 0)
    assert report.rows == sum(len(rows) for rows in billed.views().values())
    for scope in (Scope("acme"), Scope("Ærø 'quoted' \\ \t"), Scope("nobody"), MARCH):
        part = checked(billed, scope)
        assert part.difference_count == 0
        assert bool(part.events) == (scope.customer != "nobody")
        assert (part.events < len(EVENTS)) == (scope.customer is not None)  # all days are in weeks that March touches
        assert part.rows < report.rows


def test_groups_of_customers_add_up_to_all(billed: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow.verify.GROUP_EVENTS", 10)
    report = checked(billed)
    assert (report.events, report.difference_count) == (len(EVENTS), 0)


def test_row_32_a_changed_a_missing_and_an_extra_row(billed: Pipeline) -> None:
    # One token too many in one minute row.
    billed.execute(
        f"INSERT INTO rollup_minute SELECT * REPLACE ({adding(q0='1')}) "
        "FROM rollup_minute WHERE customer = 'zeta' ORDER BY window_start, key LIMIT 1"
    )
    report = checked(billed)
    assert found(report) == {
        ("usage_by_minute", "quantity"),
        ("usage_by_hour", "quantity"),
        ("usage_by_day", "quantity"),
        ("rollup_day", "q0"),
    }
    assert {difference.dimensions["customer"] for difference in report.differences} == {"zeta"}
    minute = next(one for one in report.differences if one.where == "usage_by_minute")
    assert int(minute.store) == int(minute.ledger) + 1
    assert checked(billed, Scope("acme")).difference_count == 0
    # A day row that no event explains, of a customer that has none.
    billed.execute("INSERT INTO rollup_day SELECT * REPLACE ('a stranger' AS customer) FROM rollup_day LIMIT 1")
    strange = [one for one in checked(billed).differences if one.dimensions.get("customer") == "a stranger"]
    assert {one.where for one in strange} == {"usage_by_week", "usage_by_month", "rollup_day"}
    # A minute row that is gone.
    billed.execute("DELETE FROM rollup_minute WHERE customer = 'acme' AND toMinute(window_start) = 5")
    gone = [one for one in checked(billed).differences if one.dimensions.get("customer") == "acme"]
    assert {one.store for one in gone if one.where == "usage_by_minute"} == {"none"}


@pytest.mark.parametrize("table", ["rollup_minute", "rollup_day"])
def test_a_key_of_two_meanings(billed: Pipeline, table: str) -> None:
    billed.execute(f"INSERT INTO {table} SELECT * REPLACE ('other' AS feature) FROM {table} LIMIT 1")
    assert ("rollups", "meanings of a key") in found(checked(billed))


def test_an_amount_a_digest_and_a_balance(billed: Pipeline) -> None:
    femto = "toDecimal128('0.000000000000001', 15)"
    for table in ("rollup_minute", "rollup_day"):
        billed.execute(
            f"INSERT INTO {table} SELECT * REPLACE ({adding(digest='1', a0=femto)}) "
            f"FROM {table} WHERE customer = 'acme' ORDER BY window_start, key LIMIT 1"
        )
    views = {f"usage_by_{grain}" for grain in ("minute", "hour", "day", "week", "month")}
    # Both tables tell the same lie: only the ledger knows better.
    assert found(checked(billed)) == {(view, column) for view in views for column in ("amount", "digest")}
    billed.execute(
        "INSERT INTO pipeline_balance SELECT lineage, writer, 999, shard, 1, 1, 0, 0, 0, 0 "
        "FROM pipeline_balance LIMIT 1"
    )
    assert ("pipeline_balance", "accepted") in found(checked(billed))


@pytest.fixture
def ledger_file(billed: Pipeline) -> Iterator[Path]:
    yield sorted((billed.folder / "ledger").rglob("*.parquet"))[0]


def test_a_ledger_file_that_is_missing_damaged_or_altered(billed: Pipeline, ledger_file: Path) -> None:
    content = ledger_file.read_bytes()
    table = pq.read_table(ledger_file)
    # Altered: an event an hour later.
    times = pc.add(table["time"], pa.scalar(3_600_000_000, pa.duration("us")))
    pq.write_table(table.set_column(2, table.schema.field(2), times), ledger_file)
    assert ("usage_by_minute", "row") in found(checked(billed))
    # An event twice, in the place of another.
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(5, 1)]), ledger_file)
    assert ("ledger", "accepted") in found(checked(billed))
    # Cut in half.
    ledger_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(StateError, match=r"parquet: cannot be read .* restore it from a backup"):
        checked(billed)
    # Not there at all.
    ledger_file.unlink()
    assert ("pipeline_balance", "accepted") in found(checked(billed))
    # And back.
    ledger_file.write_bytes(content)
    assert checked(billed).difference_count == 0


def test_it_refuses_what_is_not_finished(billed: Pipeline) -> None:
    block = billed.folder / "state" / "outbox" / "shard-000-0000000009.json"
    block.write_text("{}")
    with pytest.raises(RefusedStart, match="blocks wait there for the store; run `tallyflow run` first"):
        checked(billed)
    block.unlink()
    lineage = next((billed.folder / "ledger").rglob("*.parquet")).name.partition("-")[0]
    unsealed = billed.folder / "ledger" / "open" / f"{lineage}-shard-000-000009.pieces"
    unsealed.write_bytes(b"")
    with pytest.raises(RefusedStart, match="unsealed; run `tallyflow run` first"):
        checked(billed)
    unsealed.unlink()
    with pytest.raises(ConfigError, match="add `ledger: FOLDER`"):
        verify(billed.config(ledger=None))
    with pytest.raises(StateError, match="no run has begun here yet"):
        verify(billed.config(ledger="ledger", state_dir="elsewhere"))


def test_the_command(billed: Pipeline) -> None:
    fine = billed.command("verify")
    assert (fine.returncode, fine.stdout) == (0, "")
    assert fine.stderr.startswith("verified: 700 events of the ledger")
    billed.execute("DELETE FROM rollup_minute WHERE customer = 'acme'")
    billed.execute("DELETE FROM rollup_day WHERE customer = 'acme'")
    shown = billed.command("verify")
    assert shown.returncode == 3
    assert "usage_by_minute" in shown.stdout
    assert "the first 20 are shown" in shown.stderr
    as_json = billed.command("verify", "--format", "json", "--period", "2026-02-28", "--customer", "acme")
    assert as_json.returncode == 3
    differences = json.loads(as_json.stdout)
    assert {one["dimensions"]["customer"] for one in differences} == {"acme"}
    assert {one["store"] for one in differences} == {"none"}
    assert {one["window_start"][:10] for one in differences if one["where"] == "usage_by_hour"} == {"2026-02-28"}
    assert {one["window_start"] for one in differences if one["where"] == "usage_by_month"} == {"2026-02-01T00:00:00Z"}
