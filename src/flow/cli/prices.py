"""`tallyflow prices`: the commands around price books; each has a module of its own, `cli/prices_*.py`."""

import typer

from .prices_check import explain_command, lint_command, test_command
from .prices_diff import diff
from .prices_import import import_

prices = typer.Typer(help="Price books: where they come from, and what they say.", no_args_is_help=True)


@prices.callback()
def _prices() -> None:
    pass


prices.command("import")(import_)
prices.command("diff")(diff)
prices.command("explain")(explain_command)
prices.command("lint")(lint_command)
prices.command("test")(test_command)
