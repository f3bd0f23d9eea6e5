"""Re-rating a month: events a second from the ledger, and from the rollups, dry and for real.

    python benchmarks/rerate.py [--events 4000000] [--workers 2] [--customers 1000] [--combinations 24] [--folder DIR]

A run bills synthetic events (1,000 customers by Zipf's law, the sample models, three to four meters an event), and
keeps a ledger. They lie as close in time as 100 million do in a month of 30 days, since that decides how many share a
minute, and so how many correction deltas there are; fewer events are a shorter time. Then they are re-rated: by a book
in which one model has another price ("one"), and by one in which all have ("all", where every event differs, so that
there are as many correction deltas as rollup rows).
Each is timed dry, which is what it takes to know the difference, and for real. At the end the store must say what the
differences said. A folder from an earlier call is used again. CPU seconds are those of all threads: on a machine that
does other things as well, they are the better figure.

Merges that the run has left are waited for; those that re-rating causes go on while it publishes, and count. Seconds
for a month are proportional.

The rollups are quick where many events share a minute and its dimensions: few customers, few combinations.
"""

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from figures import Figure, keep, parser
from rich.console import Console
from rich.table import Table

from flow.config import Config, load_config
from flow.generate import prices_yaml
from flow.rerate.asked import Scope
from flow.rerate.rerating import Asked, Outcome, Source, dry_run, rerate
from flow.run import run
from flow.start import open_store

START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
MONTH_EVENTS = 100_000_000
IDLE_LOOKS = 6


def length(events: int) -> timedelta:
    """The time that so many events of a month take, in whole hours."""
    return timedelta(hours=max(1, MONTH // timedelta(hours=1) * events // MONTH_EVENTS))


def prepare(folder: Path, events: int, customers: int, combinations: int) -> Config:
    """The config of a billed month; billed once for a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "kind": "synthetic",
        "events": events,
        "customers": customers,
        "combinations_per_customer": combinations,
        "duration_s": length(events) // timedelta(seconds=1),
        "duplicate_ppm": 0,
        "conflicting_ppm": 0,
        "bad_ppm": 0,
    }
    settings = {
        "source": source,
        "prices": "prices.yaml",
        "store": "chdb:store",
        "state_dir": "state",
        "ledger": "ledger",
        "dedup": {"horizon": "unbounded"},
        "shards": 2,
        "limits": {"clock_skew": "30d"},  # whatever day of the month it is
    }
    (folder / "prices.yaml").write_text(prices_yaml())
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(folder / "config.yaml")
    if not (folder / "state" / "committed").exists():
        run(config)
    settle(config)
    return config


def settle(config: Config) -> None:
    """Waits for the merges that a run has left to the store: they are not of what is timed."""
    idle_looks = 0
    with open_store(config) as client:
        while idle_looks < IDLE_LOOKS:
            time.sleep(0.5)  # merges are decided on by the engine, which can only be asked
            idle_looks = 0 if client.rows("SELECT count() FROM system.merges")[0][0] else idle_looks + 1


def books(folder: Path) -> dict[str, Path]:
    """The other books, by name."""
    text = prices_yaml()
    rows = yaml.safe_load(text)
    first = rows["prices"][0]["model"]
    found = {}
    for name, models in (("one", {first}), ("all", None)):
        changed = yaml.safe_load(text)
        for row in changed["prices"]:
            if "price" in row and (models is None or row.get("model") in models):
                row["price"] = str(row["price"]) + ("1" if "." in str(row["price"]) else ".1")
        for row in changed["prices"]:
            row["from"] = row["from"].isoformat() if isinstance(row["from"], datetime) else row["from"]
        found[name] = folder / f"{name}.yaml"
        found[name].write_text(yaml.safe_dump(changed))
    return found


def timed(work: Any, *given: Any) -> tuple[float, float, Outcome]:
    """Seconds on the clock and of CPU."""
    begun, cpu_begun = time.monotonic(), time.process_time()
    outcome = work(*given)
    return time.monotonic() - begun, time.process_time() - cpu_begun, outcome


def check(config: Config) -> None:
    """The rollups and the corrections tell of one difference."""
    amount = " + ".join(f"sum(toInt256(reinterpret(a{slot}, 'Int128')))" for slot in range(4))
    with open_store(config) as client:
        minutes, days = (client.rows(f"SELECT {amount} FROM rollup_{grain}")[0][0] for grain in ("minute", "day"))
    assert minutes == days, "the rollups disagree"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=4_000_000)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--customers", type=int, default=1_000)
    arguments.add_argument("--combinations", type=int, default=24)
    arguments.add_argument("--folder", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        config = prepare(folder, given.events, given.customers, given.combinations)
        end = START + length(given.events)
        scope = Scope(*(int(instant.timestamp()) * 10**6 for instant in (START, end)))
        table = Table(title=f"re-rating {given.events:,} events, {given.workers} threads")
        for name in ("book", "from", "how", "seconds", "CPU s", "events/s", "rows", "corrections", "100 M, s"):
            table.add_column(name, justify="left" if name in ("book", "from", "how") else "right")
        measured = []
        changed = books(folder)
        for name, path, back in (("one", changed["one"], "prices.yaml"), ("all", changed["all"], None)):
            for source in (Source.ROLLUPS, Source.LEDGER):
                asked = Asked(scope, path, "benchmark", "benchmark", source)
                hows = [("dry", dry_run)] + [("for real", rerate)] * (source is Source.LEDGER)
                for how, work in hows:
                    seconds, cpu_s, outcome = timed(work, config, asked, given.workers)
                    rate = round(given.events / seconds)
                    measured.append(
                        {
                            "book": name,
                            "source": source.value,
                            "how": how,
                            "seconds": round(seconds, 2),
                            "cpu_seconds": round(cpu_s, 2),
                            "events_per_s": rate,
                            "rows_read": outcome.rows,
                            "corrections": outcome.corrections,
                        }
                    )
                    shown = (
                        f"{seconds:.2f}",
                        f"{cpu_s:.2f}",
                        f"{rate:,}",
                        f"{outcome.rows:,}",
                        f"{outcome.corrections:,}",
                    )
                    table.add_row(name, source.value, how, *shown, f"{MONTH_EVENTS / rate:.0f}")
            if back is not None:
                rerate(config, Asked(scope, folder / back, "benchmark", "back", Source.LEDGER), given.workers)
        check(config)
        Console(width=120).print(table)
        document = {
            "events": given.events,
            "customers": given.customers,
            "combinations_per_customer": given.combinations,
            "workers": given.workers,
            "rows": measured,
        }
        name = "rerate-month" if given.events >= MONTH_EVENTS else "rerate"
        keep(name, figures_of(document), document, given.results)


def figures_of(document: dict[str, Any]) -> list[Figure]:
    """How many events are re-rated in a second."""
    return [
        Figure(f"{row['source']}, {row['how']}, prices of {row['book']} changed", row["events_per_s"], "events/s")
        for row in document["rows"]
    ]


if __name__ == "__main__":
    main()
