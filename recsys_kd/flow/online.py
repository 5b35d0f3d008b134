"""Policies "online" in the synthetic shop, whose truth is known: what A/B tests, interleaving and ramps would find.

A request brings candidates; a policy orders them; places are looked at with the shop's examination and what is looked
at is clicked with its relevance. A policy's true value, clicks per request, is computed, not sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys_kd.data.synth import DEVICES, draw_slots, examination, world_after
from recsys_kd.data.synth_config import ShopConfig
from recsys_kd.errors import InputError
from recsys_kd.runtime.ranker import Ranker

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


MOST_CELLS = 50_000_000
"""Requests times candidates that a simulation may have: some 40 bytes each."""


class UnknownPolicy(InputError):
    """A policy is named that the shop does not have."""


class TooManyCandidates(InputError):
    """A request would hold more candidates than there are items, or all of them more than fit into memory."""


@dataclass(frozen=True)
class Requests:
    """R requests: users [R], C candidates each [R, C] (all by number), and their click chance if looked at."""

    user: Ints
    device: Ints
    hour: Ints
    candidates: Ints
    relevance: Floats

    def __len__(self) -> int:
        return len(self.user)


Policy = Callable[[Requests], Floats]
"""Scores [R, C]; higher is shown first."""


class OnlineShop:
    """The synthetic shop after its last logged day, taking requests."""

    def __init__(self, config: ShopConfig, shown: int = 10) -> None:
        self.config, self.shown = config, shown
        self.world = world_after(config)

    def requests(self, count: int, candidates: int, rng: np.random.Generator) -> Requests:
        """Return fresh requests; candidates are drawn by popularity, each once. Raises: TooManyCandidates."""
        world = self.world
        if candidates > self.config.items:
            raise TooManyCandidates(
                f"--candidates: {candidates:,} of a request, and the shop has {self.config.items:,} items; give at "
                "most that many, or more --items"
            )
        if count * candidates > MOST_CELLS:
            raise TooManyCandidates(
                f"--requests {count:,} with --candidates {candidates:,} are {count * candidates:,} scores; at most "
                f"{MOST_CELLS:,} fit, give fewer requests or candidates"
            )
        user = rng.choice(self.config.users, size=count, p=world.activity / world.activity.sum())
        hour = rng.choice(24, size=count, p=world.hours / world.hours.sum())
        device = rng.choice(len(DEVICES), size=count, p=[0.6, 0.3, 0.1])
        items = draw_slots(world.popularity / world.popularity.sum(), count, candidates, rng)[0]
        return Requests(user, device, hour, items, world.relevance(user, items, device, hour))

    def policy(self, name: str, seed: int = 0) -> Policy:
        """Return a policy: `popular`, `random`, `oracle`, `oracle:SD` (logits with noise), or an artifact's folder.

        Raises: UnknownPolicy, ArtifactRefused.
        """
        if name == "popular":
            return lambda r: np.asarray(self.world.popularity[r.candidates])
        if name == "random":
            return lambda r: _noise(r, seed)
        if name.split(":")[0] == "oracle":
            spread = _spread(name)
            return lambda r: np.log(r.relevance / (1 - r.relevance)) + spread * _noise(r, seed)
        if Path(name).is_dir():
            return self._artifact(Ranker.open(Path(name).resolve()))
        raise UnknownPolicy(f"policy '{name}': give popular, random, oracle, oracle:SD or an artifact's folder")

    def _artifact(self, ranker: Ranker) -> Policy:
        world = self.world

        def score(requests: Requests) -> Floats:
            out = np.empty(requests.candidates.shape)
            for i, user in enumerate(requests.user):
                past = world.history[user]
                request = {
                    "user_id": int(world.user_ids[user]),
                    "device": DEVICES[requests.device[i]],
                    "hour": int(requests.hour[i]),
                    "history": [int(h) for h in world.item_ids[past[past >= 0]]],
                }
                out[i] = ranker.score(request, world.item_ids[requests.candidates[i]], logits=True)
            return out

        return score

    def order(self, policy: Policy, requests: Requests) -> Ints:
        """Return the places in `candidates` of what is shown, best first [R, shown]."""
        return np.argsort(-policy(requests), axis=1, kind="stable")[:, : self.shown]

    def clicks(self, requests: Requests, order: Ints, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return what is clicked of what is shown [R, shown]."""
        chance = np.take_along_axis(requests.relevance, order, axis=1) * examination(order.shape[1])
        return np.asarray(rng.random(chance.shape) < chance)

    def value(self, requests: Requests, order: Ints) -> Floats:
        """Return the true expected clicks of every request [R]."""
        chance = np.take_along_axis(requests.relevance, order, axis=1)
        return np.asarray((chance * examination(order.shape[1])).sum(axis=1))


def _spread(name: str) -> float:
    """Return the standard deviation of an oracle's noise, in logits. Raises: UnknownPolicy."""
    try:
        spread = float(name.partition(":")[2]) if ":" in name else 0.0
    except ValueError:
        spread = -1.0
    if not 0 <= spread < float("inf"):
        raise UnknownPolicy(f"policy '{name}': SD of oracle:SD is a number of logits from 0 on, such as oracle:0.5")
    return spread


def _noise(requests: Requests, seed: int) -> Floats:
    """Return a normal number per user and item [R, C]: the same whenever the same item is scored for the same user."""
    mixed = requests.user[:, None].astype(np.uint64) * np.uint64(1_000_003) + requests.candidates.astype(np.uint64)
    mixed = (mixed + np.uint64(seed * 7_919 + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    uniform = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
    pair = ((mixed * np.uint64(0x94D049BB133111EB)) >> np.uint64(11)).astype(np.float64) / 2**53
    return np.asarray(np.sqrt(-2 * np.log(np.maximum(uniform, 1e-300))) * np.cos(2 * np.pi * pair))
