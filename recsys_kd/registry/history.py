"""Which versions were champion, in what order, and to which a rollback goes.

A rollback takes the champion away for good: it and those above it are no longer in the line, so that a second rollback
goes further back, not to the model that was just found bad. The audit log tells all of it. Of a registry that was
restored it tells nothing from before; then the recorded nights do, which say who went live at which epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from recsys_kd.registry.protocol import Event, NothingToRollBackTo, State, UnknownModel

_FORWARD, _BACK = ("promote", "publish"), "rollback"


@dataclass(frozen=True)
class _Step:
    epoch: int
    number: int
    back: bool


def line(state: State, events: Iterable[Event]) -> list[int]:
    """Return the champions that were not rolled back from, the oldest first and the one that is live last."""
    found: list[int] = []
    for step in _steps(state, events):
        if step.back and step.number in found:
            del found[len(found) - found[::-1].index(step.number) :]
        else:
            found.append(step.number)
    return found


def champions(state: State, events: Iterable[Event]) -> set[int]:
    """Return every version that was champion."""
    return {step.number for step in _steps(state, events)}


def _steps(state: State, events: Iterable[Event]) -> list[_Step]:
    """Return every change of champion up to the state's epoch; what only aliases tell of was a rollback."""
    steps = {p.epoch: _Step(p.epoch, p.number, back=False) for p in state.nights.values() if p.outcome == "live"}
    for event in events:
        if event.action in (*_FORWARD, _BACK):
            steps[event.epoch] = _Step(event.epoch, event.number, event.action == _BACK)
    champion = state.aliases.get("champion")
    if champion is not None:
        steps.setdefault(champion.epoch, _Step(champion.epoch, champion.number, back=True))
    return [step for epoch, step in sorted(steps.items()) if epoch <= state.epoch]


def target(state: State, events: list[Event], model: str, to: int | None) -> int:
    """Return the version that a rollback makes live. Raises: UnknownModel, NothingToRollBackTo."""
    if not state.versions:
        raise UnknownModel(f"no model '{model}' is registered here; see `recsys-kd registry list`")
    live = state.aliases.get("champion")
    if live is None:
        raise NothingToRollBackTo(f"{model}: it has no champion yet; one goes live by {_JUDGED}")
    if to is not None:
        return _chosen(state, events, model, to, live.number)
    before = [n for n in line(state, events)[:-1] if n != live.number and n not in state.collected]
    if before:
        return before[-1]
    others = sorted(champions(state, events) - {live.number} - state.collected)
    choice = f"--to VERSION makes one of {', '.join(map(str, others))} live again, and" if others else "another"
    raise NothingToRollBackTo(
        f"{model}: before version {live.number} there is no champion that was not rolled back from; {choice} "
        f"{'a new one' if others else 'version'} goes live by {_JUDGED}"
    )


_JUDGED = "its night, or by `recsys-kd gate POLICY --candidate MODEL@VERSION ... --promote`"


def _chosen(state: State, events: list[Event], model: str, to: int, live: int) -> int:
    if to == live:
        raise NothingToRollBackTo(f"{model}: version {to} is live already")
    if to in state.versions and to not in champions(state, events):
        raise NothingToRollBackTo(
            f"{model}: version {to} never was champion, so no gate let it; it goes live by {_JUDGED}"
        )
    return to
