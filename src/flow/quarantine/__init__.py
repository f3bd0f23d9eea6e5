"""Rejected events and conflicts: what they are, what is wrong with them, and the way back."""
