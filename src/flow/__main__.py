"""`python -m flow` is `tallyflow`."""

from .cli.app import main

main()
