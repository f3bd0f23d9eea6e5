"""`tallyflow prices`: the commands around price books; each has a module of its own, `cli/prices_*.py`."""

import typer

prices = typer.Typer(help="Price books: where they come from, and what they say.", no_args_is_help=True)


@prices.callback()
def _prices() -> None:
    pass
