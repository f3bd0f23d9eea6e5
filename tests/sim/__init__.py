"""The simulator: `simulate(seed)` lives a job through crashes, lost writes and an unreliable store, and
audits what is left."""

from .world import SimulationFailed, World, simulate

__all__ = ["SimulationFailed", "World", "simulate"]
