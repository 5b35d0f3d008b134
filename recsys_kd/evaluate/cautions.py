"""What a reader of a comparison must know beside its numbers: logs too small to decide, intervals that disagree, and
slices that lose."""

from collections.abc import Iterable, Iterator

from recsys_kd.evaluate.effects import Effect, Level
from recsys_kd.evaluate.measure import direction
from recsys_kd.evaluate.slices import SliceEffect
from recsys_kd.evaluate.words import told_p

DISAGREE = 0.25
"""Relative difference of the two intervals' widths at which the log is too small or too skewed for either."""
NAMED = 3
"""Slices that are named of those that lose, beside the one that loses most."""


def warnings_of(effects: tuple[Effect, ...], slices: tuple[SliceEffect, ...], level: Level) -> tuple[str, ...]:
    """Return what to know before trusting the numbers, and one line for every treatment that loses on slices."""
    deciding = [e for e in effects if e.margin is not None]
    return (
        *_too_small(deciding, level),
        *_disagreeing(deciding, level),
        *_losing(deciding, slices, 1 - level.confidence),
    )


def _too_small(deciding: Iterable[Effect], level: Level) -> Iterator[str]:
    for e in deciding:
        if e.margin is not None and e.outcome == "undecided" and e.detectable > e.margin:
            yield (
                f"too small to decide {e.treatment} on {e.metric}: with {level.clusters:,} {level.by}s only effects of "
                f"{e.detectable:.2g} are found {level.power:.0%} of the time, the margin is {e.margin:g}; about "
                f"{e.clusters_needed:,} {level.by}s would do"
            )


def _disagreeing(deciding: Iterable[Effect], level: Level) -> Iterator[str]:
    for e in deciding:
        wide, narrow = (x.high - x.low for x in (e.bootstrap, e.delta))
        off = abs(wide / narrow - 1) if narrow > 0 else 0.0
        if off > DISAGREE:
            yield (
                f"{e.treatment}, {e.metric}: bootstrap and delta method differ by {off:.0%} in width; "
                f"few {level.by}s carry this metric, take the wider interval"
            )


def loses(part: SliceEffect, alpha: float) -> bool:
    """Return whether a slice is shown to lose, by Holm's p."""
    return part.adjusted_p < alpha and direction(part.metric) * part.difference.value < 0


def _losing(deciding: list[Effect], slices: tuple[SliceEffect, ...], alpha: float) -> Iterator[str]:
    metrics = list(dict.fromkeys(e.metric for e in deciding))
    lost = [part for part in slices if loses(part, alpha)]
    for treatment in dict.fromkeys(part.treatment for part in lost):
        mine = [part for part in lost if part.treatment == treatment]
        # The metric that leads is told first, on the slice where it loses most.
        mine.sort(key=lambda part: (metrics.index(part.metric), -abs(part.difference.value)))
        worst, others = mine[0], list(dict.fromkeys(p.slice for p in mine if p.slice != mine[0].slice))
        more = f"; and on {', '.join(others[:NAMED])}" if others else ""
        more += f" and {len(others) - NAMED} others" if len(others) > NAMED else ""
        yield (
            f"{treatment} loses on {worst.slice}: {worst.metric} {worst.difference.value:+.4g} "
            f"({worst.difference.low:+.3g} to {worst.difference.high:+.3g} by Bonferroni, p {told_p(worst.adjusted_p)} "
            f"by Holm, over all slices){more}"
        )
