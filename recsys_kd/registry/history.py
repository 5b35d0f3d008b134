"""Which versions were champion, in what order, and to which a rollback goes.

A rollback takes the champion away for good: it and those above it are no longer in the line, wherever they stood, so
that a second rollback goes further back, not to a model that was found bad. The state keeps every step, and the store's
copy with it. Registries and copies from before it did tell them otherwise: by the audit log, or, where that was lost,
by the recorded nights and the aliases.
"""

from collections.abc import Iterable

from recsys_kd.registry.protocol import Event, NothingToRollBackTo, State, Step, UnknownModel

BACK = "rollback"
_MOVES = ("promote", "publish", BACK)


def steps(state: State, events: Iterable[Event] = ()) -> dict[int, Step]:
    """Return every known change of champion up to the state's epoch, the oldest first."""
    found = _pointed(state)
    found |= {p.epoch: Step(p.epoch, p.number, back=False) for p in state.nights.values() if p.outcome == "live"}
    found |= {e.epoch: Step(e.epoch, e.number, e.action == BACK) for e in events if e.action in _MOVES}
    found |= state.steps
    return {epoch: step for epoch, step in sorted(found.items()) if epoch <= state.epoch}


def _pointed(state: State) -> dict[int, Step]:
    """Return the steps that the aliases tell of, where the champion's own was not kept.

    Whether they went back is not known: `line` takes them for rollbacks where their version was champion before. A
    `previous` with a higher number than the champion was rolled back from, so it is no step of the line.
    """
    champion, previous = state.aliases.get("champion"), state.aliases.get("previous")
    if champion is None or champion.epoch in state.steps:
        return {}
    found = {champion.epoch: Step(champion.epoch, champion.number, back=True)}
    if previous is not None and previous.number < champion.number:
        found[previous.epoch - 1] = Step(previous.epoch - 1, previous.number, back=True)
    return found


def line(state: State, events: Iterable[Event] = ()) -> list[int]:
    """Return the champions that were not rolled back from, the oldest first and the one that is live last."""
    found: list[int] = []
    for step in steps(state, events).values():
        if step.back and step.number in found:
            end = len(found) - found[::-1].index(step.number)
            bad = set(found[end:])
            found = [number for number in found[:end] if number not in bad]
        else:
            found.append(step.number)
    return found


def before(state: State, events: Iterable[Event] = ()) -> int | None:
    """Return the version that the next rollback makes live, None where there is none."""
    found = line(state, events)
    return next((n for n in reversed(found) if n != found[-1] and n not in state.collected), None)


def champions(state: State, events: Iterable[Event] = ()) -> set[int]:
    """Return every version that was champion."""
    named = {p.number for alias, p in state.aliases.items() if alias in ("champion", "previous")}
    return named | {step.number for step in steps(state, events).values()}


def target(state: State, events: list[Event], model: str, to: int | None) -> int:
    """Return the version that a rollback makes live. Raises: UnknownModel, NothingToRollBackTo."""
    if not state.versions:
        raise UnknownModel(f"no model '{model}' is registered here; see `recsys-kd registry list`")
    live = state.aliases.get("champion")
    if live is None:
        raise NothingToRollBackTo(f"{model}: it has no champion yet; one goes live by {_JUDGED}")
    if to is not None:
        return _chosen(state, events, model, to, live.number)
    found = before(state, events)
    if found is not None:
        return found
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
