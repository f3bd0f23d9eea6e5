"""Tests on the real traces of ../shared/data; each is skipped where that folder does not exist."""
