"""The tests that an hour of many names is put to at once, each against what is usual for the name.

Each looks at columns, says which rows are out of line, and learns the hour. An hour that is out of line is learnt as
if it had stood at the bound: one fault neither becomes usual nor hides the next, and a change that stays does become
usual. What is out of line is *told* once for each episode, which ends when it was not for some hours.
"""

from typing import Any, NamedTuple

import numpy as np

from .levels import NONE
from .series import RING, Series, Usual

SHARE_LEAST_PPM = 10_000
"""A usual share below 1 % is taken for 1 %."""
COUNT_LEAST = 10
"""Fewer events are no share."""
EPISODE_HOURS = 6
"""What is out of line again within so many hours is of the same episode."""
DEVIATIONS = 6
"""How many standard deviations of a count at random a share must be above the usual one."""

_ROOT_MAX = 3 * 10**9  # its square is below 2^63


class Above(NamedTuple):
    """Which rows are above what is usual, and what that is, in levels."""

    told: Any
    usual: Usual
    high: Any


def above(
    series: Series, ring: str, out: str, rows: Any, levels: Any, steps: int, peak_steps: int, judged: Any
) -> Above:
    """Levels that are higher than the median by `steps`, than the most by `peak_steps`, and than the peak.

    The peak is what was highest ever; it sinks by a level in 24 hours of use, which is half of it in 16 days.
    `judged`: which rows may be told at all. `out` names the counter of the hours that an episode goes on for.
    """
    usual, peaks = series.usual(ring, rows), series.counts[f"{ring}_peak"]
    high = np.maximum(np.maximum(usual.median + steps, usual.most + peak_steps), peaks[rows] // RING)
    beyond = (usual.hours == RING) & (levels > high) & judged
    told = beyond & _begins(series, out, rows, beyond)
    learnt = np.where(beyond, high, levels)
    peaks[rows] = np.maximum(learnt * RING, np.maximum(peaks[rows] - 1, 0))
    series.push(ring, rows, learnt.astype(np.int16))
    return Above(told, usual, high)


def _begins(series: Series, out: str, rows: Any, beyond: Any) -> Any:
    """Which rows are in no episode yet; counts the hours until theirs ends."""
    left = series.counts[out][rows]
    series.counts[out][rows] = np.where(beyond, EPISODE_HOURS, np.maximum(left - 1, 0))
    return left == 0


class Between(NamedTuple):
    """Which rows are outside of what is usual, and what that is, in levels."""

    told: Any
    usual: Usual
    low: Any
    high: Any


def between(series: Series, ring: str, out: str, rows: Any, levels: Any, steps: int, judged: Any) -> Between:
    """Levels that differ from the median by more than `steps`, and by half of that from all of the last hours."""
    usual = series.usual(ring, rows)
    high = np.maximum(usual.median + steps, usual.most + steps // 2)
    low = np.minimum(usual.median - steps, usual.least - steps // 2)
    beyond = (usual.hours == RING) & ((levels > high) | (levels < low)) & judged
    told = beyond & _begins(series, out, rows, beyond)
    learnt = np.where(beyond, np.clip(levels, np.maximum(low, 0), high), levels)
    series.push(ring, rows, np.where(judged, learnt, NONE).astype(np.int16))
    return Between(told, usual, low, high)


class Share(NamedTuple):
    """Which rows have too large a share, and what is usual, in millionths."""

    told: Any
    expected_ppm: Any
    high_ppm: Any


def share(series: Series, part: str, whole: str, out: str, rows: Any, parts: Any, wholes: Any, factor: int) -> Share:
    """Parts of wholes that are `factor` times the usual share, and more than chance makes of it.

    `part` and `whole` name the counters that remember: each hour they lose a 24th and take in the hour.
    """
    counts = series.counts
    known_parts, known_wholes = counts[part][rows], counts[whole][rows]
    usual_ppm = known_parts * 1_000_000 // np.maximum(known_wholes, 1)
    expected_ppm = np.maximum(usual_ppm, SHARE_LEAST_PPM)
    expected = wholes * expected_ppm // 1_000_000
    beyond = (counts["hours"][rows] >= RING) & (parts >= COUNT_LEAST)
    beyond &= parts * 1_000_000 > factor * expected_ppm * wholes
    beyond &= np.clip(parts - expected, 0, _ROOT_MAX) ** 2 > DEVIATIONS**2 * np.maximum(expected, 1)
    told = beyond & (counts[out][rows] == 0)
    counts[out][rows] = np.where(beyond, counts[out][rows] + 1, 0)
    learnt = ~beyond | (counts[out][rows] > RING)
    counts[part][rows] = np.where(learnt, known_parts - known_parts // RING + parts, known_parts)
    counts[whole][rows] = np.where(learnt, known_wholes - known_wholes // RING + wholes, known_wholes)
    return Share(told, usual_ppm, np.minimum(expected_ppm * factor, 1_000_000))


def gone(series: Series, ring: str, rows: Any, hours: int, least: int) -> tuple[Any, Usual]:
    """The rows that have been gone for so many hours now, after 24 hours in a row of at least the level `least`.

    `rows` are there in this hour.
    """
    streak, quiet = series.counts["streak"], series.counts["quiet"]
    here = np.zeros(len(series), bool)
    here[rows] = True
    streak[here] = np.where(quiet[here] > 0, 1, streak[here] + 1)
    quiet[here] = 0
    quiet[~here] += 1
    found = np.flatnonzero((quiet == hours) & (streak >= RING))
    usual = series.usual(ring, found)
    steady = (usual.least >= least) & (usual.hours == RING)
    return found[steady], Usual(*(column[steady] for column in usual))
