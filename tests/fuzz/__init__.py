"""Differential fuzzing of decode: made-up and mutated messages, native decoder and exact reader against the oracle."""
