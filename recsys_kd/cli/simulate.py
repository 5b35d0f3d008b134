"""`recsys-kd simulate`: policies online in the synthetic shop, experiments beside the truth."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

Rows = Annotated[int, typer.Option(min=1000, help="Log rows of the shop, about.")]
Days = Annotated[int, typer.Option(min=4, help="Days of the shop's log.")]
Users = Annotated[int, typer.Option(min=10, help="Users of the shop.")]
Items = Annotated[int, typer.Option(min=50, help="Items of the shop.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="What the shop is drawn from.")]


def simulate(  # noqa: PLR0913 - one per option
    control: Annotated[str, typer.Option(help="popular, random, oracle, oracle:SD or an artifact's folder.")],
    treatment: Annotated[str, typer.Option(help="The same.")],
    requests: Annotated[int, typer.Option(min=100, help="Requests to serve.")] = 20_000,
    candidates: Annotated[int, typer.Option(min=2, help="Candidates of a request; 10 are shown.")] = 30,
    rows: Rows = 1_000_000,
    days: Days = 14,
    users: Users = 1500,
    items: Items = 1000,
    seed: Seed = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Run an A/B test, team-draft interleaving and a ramp between two policies, with the truth beside each.

    The shop is the one that `recsys-kd synth` makes with the same rows, days, users, items and seed.
    """
    import numpy as np

    from recsys_kd.data.synth_config import shop_config
    from recsys_kd.evaluate.evaluation import Interval, plain_values
    from recsys_kd.flow.experiments import ab_test, interleave, ramp
    from recsys_kd.flow.online import OnlineShop

    shop = OnlineShop(shop_config(rows=rows, days=days, users=users, items=items, seed=seed))
    asked = shop.requests(requests, candidates, np.random.default_rng(seed))
    pair = shop.policy(control, 1), shop.policy(treatment, 2)
    found = [ab_test(shop, *pair, asked, seed=seed), interleave(shop, *pair, asked, seed=seed)]
    climbed = ramp(shop, *pair, asked, seed=seed)
    if as_json:
        steps = [asdict(s) for s in climbed.steps]
        whole = {"experiments": [asdict(f) for f in found], "ramp": steps, "ended": climbed.ended}
        typer.echo(json.dumps(plain_values(whole)))
        return

    def told(d: Interval) -> str:
        known = f"{d.low:+.5f} .. {d.high:+.5f}" if np.isfinite(d.low) else "too few users for an interval"
        return f"{d.value:+.5f} ({known})" if np.isfinite(d.value) else "not known: too few users"

    for one in found:
        typer.echo(
            f"{one.what:<24} {told(one.difference)}, truth {one.truth:+.5f}, "
            f"{one.users:,} users" + ("" if one.split_p is None else f", sample ratio p {one.split_p:.2g}")
        )
    for step in climbed.steps:
        typer.echo(
            f"ramp, {step.share:>4.0%} of {step.users:>6,} users {told(step.difference)}, truth {step.truth:+.5f}"
        )
    typer.echo(f"ramp ended: {climbed.ended}")
