"""`tallyflow run`, started as Bytewax users do.

    TALLYFLOW_CONFIG=config.yaml python -m bytewax.run flow.job

Bytewax's runner loads a dataflow and runs it. Here it gets none: a job is more than its dataflow (a lock and a term
before it, publishing and the balance behind it; docs/decisions/013-several-hosts.md), so that the function which it
calls runs the job, and ends the process. -w, -i and -a mean what they mean there; what -r, -s and -b would set is in
the config.
"""

import os
import sys
from argparse import Namespace
from typing import NoReturn

from bytewax import run

from .cli.app import main


def flow() -> NoReturn:
    """Runs the job; exits as `tallyflow run` does."""
    sys.argv = ["tallyflow", "run", *arguments(run._parse_args(), os.environ.get("TALLYFLOW_CONFIG", ""))]
    main()
    sys.exit(0)


def arguments(given: Namespace, config: str) -> list[str]:
    """What `tallyflow run` is to be told. Exits with 2 where it cannot be what was meant."""
    if not config:
        _refuse("set TALLYFLOW_CONFIG to the path of the config")
    if (given.recovery_directory, given.snapshot_interval, given.backup_interval) != (None, None, None):
        _refuse("-r, -s and -b are not for this job: its config has state_dir and epoch")
    told = [config, "--workers", str(given.workers_per_process or 1)]
    if given.process_id is not None:
        told += ["--addresses", given.addresses.replace(";", ","), "--host", str(given.process_id)]
    return told


def _refuse(why: str) -> NoReturn:
    print(f"tallyflow: {why}", file=sys.stderr)
    sys.exit(2)
