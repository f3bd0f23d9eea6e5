"""By hand: the workload of `columnar.py` in Spark, one core, as a batch and as a stream. README.md has the commands.

    python benchmarks/by_hand/spark.py EVENTS.parquet {batch,stream}

Duplicates are removed by (source, id), amounts are decimals of 38 digits, and a row for each minute and combination of
dimensions goes into Parquet files. The stream is one micro-batch of everything that is there, with state in RocksDB; as
Spark drops a duplicate within a watermark only, the watermark is a day behind. Printed are how many events were counted
and the sum of all amounts, which are those that `columnar.py` finds, and the seconds without the start of the JVM.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from columnar import DIMENSIONS, METERS, MODELS, RATES_FEMTO

AMOUNT = "decimal(38,0)"


def rollup(events: DataFrame, prices: DataFrame) -> DataFrame:
    """Rows of minutes; `events` are without duplicates."""
    amounts = [f.sum(f.col(meter).cast("decimal(19,0)") * f.col(f"{meter}_rate")).cast(AMOUNT) for meter in METERS]
    return (
        events.join(f.broadcast(prices), "model")
        .groupBy(f.window("time", "1 minute"), "customer", *DIMENSIONS)
        .agg(
            f.count("*").alias("events"),
            *(f.sum(meter).alias(meter) for meter in METERS),
            *(amount.alias(f"{meter}_amount") for meter, amount in zip(METERS, amounts, strict=True)),
        )
    )


def main() -> None:
    path, how = Path(sys.argv[1]), sys.argv[2]
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.sql.shuffle.partitions", 1)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.memory", "8g")
        .config("spark.ui.enabled", "false")
        .config(
            "spark.sql.streaming.stateStore.providerClass",
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
        )
        .getOrCreate()
    )
    rates = [(f"model-{n:02d}", *(RATES_FEMTO[meter][n] for meter in METERS)) for n in range(MODELS)]
    columns = ["model string", *(f"{meter}_rate bigint" for meter in METERS)]
    prices = spark.createDataFrame(rates, ", ".join(columns))
    for meter in METERS:
        prices = prices.withColumn(f"{meter}_rate", f.col(f"{meter}_rate").cast("decimal(19,0)"))
    scratch = Path(tempfile.mkdtemp(prefix="spark-"))
    begun = time.monotonic()
    if how == "batch":
        rollup(spark.read.parquet(str(path)).dropDuplicates(["source", "id"]), prices).write.parquet(f"{scratch}/out")
    else:
        (scratch / "in").mkdir()
        (scratch / "in" / path.name).symlink_to(path.resolve())
        schema = spark.read.parquet(str(path)).schema
        events = spark.readStream.schema(schema).parquet(f"{scratch}/in").withWatermark("time", "1 day")
        rows = rollup(events.dropDuplicatesWithinWatermark(["source", "id"]), prices)

        def write(batch: DataFrame, number: int) -> None:
            batch.write.mode("append").parquet(f"{scratch}/out")

        stream = rows.writeStream.outputMode("update").option("checkpointLocation", f"{scratch}/checkpoint")
        stream.foreachBatch(write).trigger(availableNow=True).start().awaitTermination()
    seconds = time.monotonic() - begun
    amount = sum((f.col(f"{meter}_amount") for meter in METERS), f.lit(0))
    found = spark.read.parquet(f"{scratch}/out").agg(f.sum("events"), f.sum(amount)).collect()[0]
    print(f"{how}: {found[0]:,} events, {found[1]} femto-units, {seconds:.1f} s")
    spark.stop()
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
