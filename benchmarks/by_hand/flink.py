"""By hand: the workload `flat` of `json_path.py` in Flink SQL, one slot, as a stream (README.md has the commands).

    python benchmarks/by_hand/flink.py EVENTS.ndjson

The first event of each (source, id) is kept, amounts are decimals of 38 digits, and windows of a minute go into CSV
files. State is in memory, and there are no checkpoints. Printed are how many events were counted and the sum of all
amounts, which are those that Tallyflow and Spark come to on the same events, and the seconds.
"""

import csv
import shutil
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from columnar import DIMENSIONS, METERS, MODELS, RATES_FEMTO

TEXTS = ("customer", *DIMENSIONS)


def main() -> None:
    path, scratch = Path(sys.argv[1]).resolve(), Path(tempfile.mkdtemp(prefix="flink-"))
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    tables.get_config().set("parallelism.default", "1").set("table.local-time-zone", "UTC")
    texts = ", ".join(f"{name} STRING" for name in ("id", "source", *TEXTS))
    meters = ", ".join(f"{meter} BIGINT" for meter in METERS)
    tables.execute_sql(f"""
        CREATE TABLE events ({texts}, `time` TIMESTAMP_LTZ(3), `usage` ROW<{meters}>, arrived AS PROCTIME(),
            WATERMARK FOR `time` AS `time` - INTERVAL '1' MINUTE)
        WITH ('connector' = 'filesystem', 'path' = 'file://{path}', 'format' = 'json',
            'json.timestamp-format.standard' = 'ISO-8601')""")
    columns = ", ".join(f"{meter}_rate" for meter in METERS)
    rows = ", ".join(
        f"('model-{n:02d}', {', '.join(str(RATES_FEMTO[meter][n]) for meter in METERS)})" for n in range(MODELS)
    )
    tables.execute_sql(f"CREATE TEMPORARY VIEW prices AS SELECT * FROM (VALUES {rows}) AS of_model (priced, {columns})")
    sums = ", ".join(f"SUM(`usage`.{meter}) AS {meter}" for meter in METERS)
    amounts = ", ".join(
        f"{meter}, CAST({meter} AS DECIMAL(19, 0)) * CAST({meter}_rate AS DECIMAL(19, 0))" for meter in METERS
    )
    grouped = ", ".join(TEXTS)
    written = ", ".join(f"{meter} BIGINT, {meter}_amount DECIMAL(38, 0)" for meter in METERS)
    tables.execute_sql(f"""
        CREATE TABLE minutes (window_start TIMESTAMP(3), {", ".join(f"{name} STRING" for name in TEXTS)}, events BIGINT,
            {written})
        WITH ('connector' = 'filesystem', 'path' = 'file://{scratch}', 'format' = 'csv')""")
    tables.execute_sql("""
        CREATE TEMPORARY VIEW once AS SELECT * FROM
        (SELECT *, ROW_NUMBER() OVER (PARTITION BY source, id ORDER BY arrived) AS nth FROM events) WHERE nth = 1""")
    # Rated behind the window, whose sums are of one model: a join before it would lose the time attribute.
    begun = time.monotonic()
    tables.execute_sql(f"""
        INSERT INTO minutes SELECT window_start, {grouped}, events, {amounts} FROM
        (SELECT window_start, {grouped}, COUNT(*) AS events, {sums}
            FROM TABLE(TUMBLE(TABLE once, DESCRIPTOR(`time`), INTERVAL '1' MINUTE))
            GROUP BY window_start, window_end, {grouped})
        JOIN prices ON model = priced""").wait()
    seconds, events, amount = time.monotonic() - begun, 0, 0
    for file in scratch.rglob("part-*"):
        with file.open(newline="") as lines:
            for row in csv.reader(lines):
                events += int(row[1 + len(TEXTS)])
                amount += sum(int(Decimal(number)) for number in row[3 + len(TEXTS) :: 2])
    print(f"stream: {events:,} events, {amount} femto-units, {seconds:.1f} s")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
