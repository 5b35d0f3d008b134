"""A comparison in one sentence, for somebody who reads nothing else: which to use, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recsys_kd.evaluate.effects import Effect
from recsys_kd.evaluate.inference import holm
from recsys_kd.evaluate.measure import direction

SMALLEST_P = 1e-6
"""p-values below are told as such: what a t distribution says so far out is not known to more than its order."""


def told_p(p: float) -> str:
    """Return `0.0031`, `<1e-06`, or `-` where there is none."""
    if p != p:
        return "-"
    return f"{p:.2g}" if p >= SMALLEST_P else f"<{SMALLEST_P:.0e}"


def headline(
    control: str,
    outcomes: Mapping[str, str],
    effects: Iterable[Effect],
    confidence: float,
    doubts: Mapping[str, str] | None = None,
) -> str:
    """Return the sentence. effects: all of them; doubts: treatment -> what off-policy values say against it."""
    deciding = [e for e in effects if e.margin is not None]
    sure = _sure(deciding, 1 - confidence)
    cases = [
        _Case(t, word, [e for e in deciding if e.treatment == t], sure, (doubts or {}).get(t, ""))
        for t, word in outcomes.items()
    ]
    winners = [c for c in cases if c.word == "better" and not c.doubt]
    doubted = [c for c in cases if c.doubt and c.word in ("better", "no worse")]
    if winners:
        return _use(control, max(winners, key=lambda c: c.lead_gain))
    if doubted:
        best = max(doubted, key=lambda c: (c.word == "better", c.lead_gain))
        on_log = f"better on {_all(best.better)}" if best.better else "no worse by more than allowed"
        return f"Don't switch to {best.name} yet: it is {on_log}, but {best.doubt}; settle it with an online test."
    return _one(control, cases[0]) if len(cases) == 1 else _several(control, cases)


@dataclass(frozen=True)
class _Case:
    """One treatment's deciding effects, sorted by what they say. sure: those that differ from 0 by Holm's p."""

    name: str
    word: str
    effects: list[Effect]
    sure: set[tuple[str, str]]
    doubt: str

    def _with(self, outcome: str) -> list[Effect]:
        return [e for e in self.effects if e.outcome == outcome]

    def _small(self, sign: int) -> list[Effect]:
        """Return changes that are sure and yet neither better nor worse by what was asked for."""
        inside = [e for e in self._with("no worse") if (e.treatment, e.metric) in self.sure]
        return [e for e in inside if sign * direction(e.metric) * e.delta.value > 0]

    @property
    def better(self) -> list[Effect]:
        return self._with("better")

    @property
    def worse(self) -> list[Effect]:
        return self._with("worse")

    @property
    def open(self) -> list[Effect]:
        return self._with("undecided")

    @property
    def small_gains(self) -> list[Effect]:
        return self._small(1)

    @property
    def small_losses(self) -> list[Effect]:
        return self._small(-1)

    @property
    def lead_gain(self) -> float:
        """Gain in the first metric that decides."""
        return direction(self.effects[0].metric) * self.effects[0].delta.value

    @property
    def though(self) -> str:
        """What speaks for a treatment that is not used."""
        gains = [*self.better, *self.small_gains]
        return f", though better on {_all(gains)}" if gains else ""


def _sure(deciding: list[Effect], alpha: float) -> set[tuple[str, str]]:
    p = holm([e.p for e in deciding])
    return {(e.treatment, e.metric) for e, value in zip(deciding, p, strict=True) if value < alpha}


def _told(effect: Effect) -> str:
    return (
        f"{effect.metric} {effect.delta.value:+.4g} ({effect.delta.low:+.3g} to {effect.delta.high:+.3g}, "
        f"p {told_p(effect.adjusted_p)})"
    )


def _span(effect: Effect) -> str:
    return f"{effect.metric} {effect.delta.value:+.4g} ({effect.delta.low:+.3g} to {effect.delta.high:+.3g})"


def _all(effects: list[Effect]) -> str:
    return _listed([_span(e) for e in effects])


def _listed(parts: list[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), *parts[-1:]])


def _within(effects: list[Effect]) -> str:
    return _listed([f"{e.margin:g} {e.metric}" for e in effects])


def _use(control: str, case: _Case) -> str:
    gains = "; ".join(_told(e) for e in case.better)
    rest = [e for e in case.effects if e.outcome == "no worse"]
    also = f", and no worse by more than {_within(rest)}" if rest else ""
    return f"Use {case.name}: it is better than {control} on this log ({gains}){also}."


def _one(control: str, case: _Case) -> str:
    if case.word == "worse":
        return f"Keep {control}: {case.name} is worse on {'; '.join(map(_told, case.worse))}{case.though}."
    if case.word == "no worse":
        return _may_replace(control, case)
    return (
        f"No decision: {case.name} may be worse than {control} by more than allowed, and this log can't tell "
        f"({_all(case.open)}){case.though}."
    )


def _may_replace(control: str, case: _Case) -> str:
    allowed = f"no worse by more than {_within(case.effects)}"
    if case.small_gains:
        asked = " and ".join(f"{e.better_by:g}" for e in case.small_gains)
        return (
            f"{case.name} may replace {control}: it is better on {_all(case.small_gains)}, but not shown to be by the "
            f"{asked} asked for, and {allowed}."
        )
    if case.small_losses:
        return (
            f"{case.name} may replace {control} if it is cheaper: it loses {_all(case.small_losses)}, and is {allowed}."
        )
    return f"{case.name} may replace {control} if it is cheaper: it is not shown to be better, and is {allowed}."


def _several(control: str, cases: list[_Case]) -> str:
    words, names = {c.word for c in cases}, _listed([c.name for c in cases])
    if words == {"undecided"}:
        told = "; ".join(f"{c.name}: {_all(c.open)}{c.though}" for c in cases)
        return f"No decision: {names} may be worse than {control} by more than allowed, this log can't tell ({told})."
    if words == {"no worse"}:
        gains = [f"{c.name} on {_all(c.small_gains)}" for c in cases if c.small_gains]
        not_better = (
            f"better, by less than asked for, is {' and '.join(gains)}" if gains else "none is shown to be better"
        )
        return (
            f"{names} may replace {control} if cheaper: {not_better}, and none is worse by more than "
            f"{_within(cases[0].effects)}."
        )
    return f"Keep {control}: no treatment is shown to be better ({'; '.join(_said(control, c) for c in cases)})."


def _said(control: str, case: _Case) -> str:
    if case.word == "worse":
        return f"{case.name} is worse on {_all(case.worse)}{case.though}"
    if case.word == "undecided":
        return f"{case.name} is not decided on {' and '.join(e.metric for e in case.open)}{case.though}"
    return f"{case.name} is no worse{case.though}"
