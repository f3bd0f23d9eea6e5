"""Runs a config as `tallyflow run` does, in a process of its own that a test can look into and kill.

    python drive.py CONFIG RESULT [--watch] SQL...

RESULT gets the answers to the queries as JSON, {"answers": [[row, ...], ...]}: at the end, and with --watch again and
again while the job runs, since the embedded store belongs to one process.
"""

import json
import sys
import threading
import time
from pathlib import Path

from flow.config import load_config
from flow.errors import TallyflowError
from flow.run import run
from flow.start import open_store


def main() -> int:
    config_path, result, *queries = sys.argv[1:]
    watching = "--watch" in queries
    queries = [sql for sql in queries if sql != "--watch"]
    config = load_config(Path(config_path))
    path = Path(result)

    def answer() -> None:
        with open_store(config) as client:
            answers = [[[str(value) for value in row] for row in client.rows(sql)] for sql in queries]
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"answers": answers, "at": time.time()}))
        new.rename(path)

    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            try:
                answer()
            except TallyflowError:
                continue  # the tables are not made yet

    watcher = threading.Thread(target=watch, daemon=True)
    if watching:
        watcher.start()
    try:
        run(config)
    except TallyflowError as error:
        print(f"tallyflow: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        done.set()
        if watching:
            watcher.join()
    answer()
    return 0


if __name__ == "__main__":
    sys.exit(main())
