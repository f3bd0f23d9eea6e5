"""The questions that statements ask, one a file."""
