"""Faults: the real binary, a real engine, and everything around them failing."""
