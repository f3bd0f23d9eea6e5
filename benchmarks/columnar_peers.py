"""The other sides of `columnar.py`, which runs each as a process of its own; nothing is imported that it does not need.

    python benchmarks/columnar_peers.py {duckdb,polars,clickhouse,reading} EVENTS.parquet PRICES

PRICES is JSON: rows of a model and the rates of its three meters. Each removes duplicates by (source, id), charges each
event in integers of 128 bits, rolls up by minute and five dimensions, leaves that in a file or table here, and prints
how many events it counted and the sum of all amounts. Each does so in the fastest way of those that were tried, on one
thread.

`reading` bills nothing: it does what a run of Tallyflow does besides its own work, and says how many rows it read.
"""

import json
import os
import sys

Prices = list[tuple[str, int, int, int]]


def duckdb(events: str, prices: Prices) -> tuple[int, int]:
    """DISTINCT ON takes less time than GROUP BY with any_value (1.6 times as long)."""
    from duckdb import connect

    connection = connect("rollup.duckdb")
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    connection.execute("CREATE TABLE prices (model VARCHAR, a HUGEINT, b HUGEINT, c HUGEINT)")
    connection.executemany("INSERT INTO prices VALUES (?, ?, ?, ?)", prices)
    connection.execute(
        """
        CREATE TABLE rollup AS
        SELECT window_start, customer, project, feature, model, region, count(*) AS events,
               sum(input_tokens) AS qa, sum(cached_input_tokens) AS qb, sum(output_tokens) AS qc,
               sum(input_tokens::HUGEINT * a) AS aa, sum(cached_input_tokens::HUGEINT * b) AS ab,
               sum(output_tokens::HUGEINT * c) AS ac
        FROM (SELECT time_bucket(INTERVAL 1 minute, time) AS window_start, *
              FROM (SELECT DISTINCT ON (source, id) * FROM read_parquet(?)))
        JOIN prices USING (model) GROUP BY ALL""",
        [events],
    )
    connection.execute("CHECKPOINT")
    found = connection.execute("SELECT sum(events), sum(aa + ab + ac) FROM rollup").fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def polars(events: str, prices: Prices) -> tuple[int, int]:
    """On one thread the engine for what is in memory takes less time and memory than the streaming one (1.4 times)."""
    os.environ["POLARS_MAX_THREADS"] = "1"  # is read when it is imported
    import polars as pl

    rates = pl.LazyFrame(
        prices, schema={"model": pl.String, "a": pl.Int128, "b": pl.Int128, "c": pl.Int128}, orient="row"
    )
    meters = {"a": "input_tokens", "b": "cached_input_tokens", "c": "output_tokens"}
    (
        pl.scan_parquet(events)
        .unique(subset=["source", "id"], keep="any")
        .with_columns(window_start=pl.col("time").dt.truncate("1m"))
        .join(rates, on="model")
        .group_by("window_start", "customer", "project", "feature", "model", "region")
        .agg(
            pl.len().alias("events"),
            *(pl.col(meter).sum().alias(f"q{rate}") for rate, meter in meters.items()),
            *((pl.col(meter).cast(pl.Int128) * pl.col(rate)).sum().alias(f"a{rate}") for rate, meter in meters.items()),
        )
        .collect(engine="in-memory")
        .write_parquet("rollup.parquet")
    )
    rollup = pl.scan_parquet("rollup.parquet")
    ((counted, amount),) = (
        rollup.select(pl.col("events").sum(), (pl.col("aa") + pl.col("ab") + pl.col("ac")).sum()).collect().rows()
    )
    return int(counted), int(amount)


def clickhouse(events: str, prices: Prices) -> tuple[int, int]:
    """LIMIT BY takes less time and memory than GROUP BY with any (1.6 times)."""
    from chdb.session import Session

    session = Session("store")
    session.query("CREATE DATABASE rollups")
    session.query("USE rollups")
    session.query("CREATE TABLE prices (model String, a Int128, b Int128, c Int128) ENGINE = Memory")
    session.query("INSERT INTO prices VALUES " + ", ".join(f"('{model}', {a}, {b}, {c})" for model, a, b, c in prices))
    session.query(
        f"""
        CREATE TABLE rollup ENGINE = MergeTree ORDER BY (window_start, customer, project, feature, model, region) AS
        SELECT toStartOfMinute(time) AS window_start, customer, project, feature, model, region, count() AS events,
               sum(input_tokens) AS qa, sum(cached_input_tokens) AS qb, sum(output_tokens) AS qc,
               sum(input_tokens * a) AS aa, sum(cached_input_tokens * b) AS ab, sum(output_tokens * c) AS ac
        FROM (SELECT * FROM file('{events}', 'Parquet') LIMIT 1 BY source, id) AS event
        JOIN prices ON event.model = prices.model
        GROUP BY window_start, customer, project, feature, model, region
        SETTINGS max_threads = 1, max_insert_threads = 1, max_parsing_threads = 1, max_download_threads = 1,
                 schema_inference_make_columns_nullable = 0"""
    )
    found = str(session.query("SELECT sum(events), sum(aa + ab + ac) FROM rollup", "TSV")).split()
    return int(found[0]), int(found[1])


def reading(events: str, prices: Prices) -> tuple[int, int]:
    """Loads what a run loads, makes the tables of an embedded store, and reads the file in batches, on one thread."""
    from importlib import import_module
    from pathlib import Path

    import_module("flow.run")
    from flow.config import Limits, Store
    from flow.sources.files import read_files
    from flow.steps.batches import Columns
    from flow.store.client import connect
    from flow.store.migrate import migrate

    with connect(Store(kind="chdb", path=Path("store").absolute())) as client:
        migrate(client)
    items = read_files([Path(events)], "parquet", Limits().batch_rows)
    return sum(item.table.num_rows for item in items if isinstance(item, Columns)), 0


if __name__ == "__main__":
    side = {"duckdb": duckdb, "polars": polars, "clickhouse": clickhouse, "reading": reading}[sys.argv[1]]
    print(json.dumps([str(number) for number in side(sys.argv[2], json.loads(sys.argv[3]))]))
