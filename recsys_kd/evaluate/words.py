"""A comparison in sentences: one for somebody who reads nothing else, and the warnings."""

from recsys_kd.evaluate.effects import Effect, Level
from recsys_kd.evaluate.measure import direction
from recsys_kd.evaluate.slices import SliceEffect
from recsys_kd.settings import AbConfig

DISAGREE = 0.25
"""Relative difference of the two intervals' widths at which the log is too small or too skewed for either."""


def _told(effect: Effect) -> str:
    return (
        f"{effect.metric} {effect.delta.value:+.4g} ({effect.delta.low:+.3g} to {effect.delta.high:+.3g}, "
        f"p {effect.adjusted_p:.2g})"
    )


def headline(control: str, outcomes: dict[str, str], effects: tuple[Effect, ...], config: AbConfig) -> str:
    """Return one sentence: which to use, and why."""
    deciding = [e for e in effects if e.metric in config.decide]
    winners = [t for t, said in outcomes.items() if said == "better"]
    if winners:
        lead = next(iter(config.decide))
        best = max(winners, key=lambda t: _gain(deciding, t, lead))
        gains = "; ".join(_told(e) for e in deciding if e.treatment == best and e.outcome == "better")
        return f"Use {best}: it is better than {control} on this log ({gains}), and worse on nothing that decides."
    if len(outcomes) > 1 and len(set(outcomes.values())) > 1:
        said = ", ".join(f"{t} is {word if word != 'undecided' else 'not decided'}" for t, word in outcomes.items())
        return f"Keep {control}: no treatment is shown to be better ({said})."
    treatment, word = next(iter(outcomes.items()))
    mine = [e for e in deciding if e.treatment == treatment]
    if word == "worse":
        losses = "; ".join(_told(e) for e in mine if e.outcome == "worse")
        return f"Keep {control}: {treatment} is worse on this log ({losses})."
    if word == "no worse":
        return (
            f"{treatment} may replace {control} if it is cheaper: it is not better, and no worse by more than "
            f"{' and '.join(f'{e.margin:g} {e.metric}' for e in mine)}."
        )
    open_ = "; ".join(_told(e) for e in mine if e.outcome == "undecided")
    return f"No decision: {treatment} may be worse than {control} by more than allowed; this log can't tell ({open_})."


def _gain(effects: list[Effect], treatment: str, metric: str) -> float:
    found = next(e for e in effects if (e.treatment, e.metric) == (treatment, metric))
    return direction(metric) * found.delta.value


def warnings_of(
    effects: tuple[Effect, ...], slices: tuple[SliceEffect, ...], config: AbConfig, level: Level
) -> tuple[str, ...]:
    """Return what a reader must know: too small a log, methods that disagree, slices that lose."""
    notes = []
    for e in effects:
        if e.margin is not None and e.outcome == "undecided" and e.detectable > e.margin:
            notes.append(
                f"too small to decide {e.treatment} on {e.metric}: with {level.users:,} users only effects of "
                f"{e.detectable:.2g} are found {level.power:.0%} of the time, the margin is {e.margin:g}; about "
                f"{e.users_needed:,} users would do"
            )
        wide, narrow = (x.high - x.low for x in (e.bootstrap, e.delta))
        off = abs(wide / narrow - 1) if narrow > 0 else 0.0
        if e.margin is not None and off > DISAGREE:
            notes.append(
                f"{e.treatment}, {e.metric}: bootstrap and delta method differ by {off:.0%} in width; "
                "few users carry this metric, take the wider interval"
            )
    for part in slices:
        sign, alpha = direction(part.metric), 1 - level.confidence
        if part.adjusted_p < alpha and sign * part.difference.value < 0:
            notes.append(
                f"{part.treatment} loses on {part.slice}: {part.metric} {part.difference.value:+.4g} "
                f"({part.difference.low:+.3g} to {part.difference.high:+.3g} by Bonferroni, p {part.adjusted_p:.2g} by "
                "Holm, over all slices)"
            )
    return tuple(notes)
