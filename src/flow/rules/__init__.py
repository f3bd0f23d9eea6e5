"""Rule books: what events must be like. Start at `book.py`."""
