"""What a gate's policy asks for, checked before the log is read: a typing error is told at once."""

from collections.abc import Iterable

from recsys_kd.compress.plan import BadBudget, parse_bytes
from recsys_kd.evaluate.inspect import NoInterval
from recsys_kd.evaluate.policy import BadPolicy, Policy
from recsys_kd.evaluate.sample import Unit

_ROWS = ("auc", "gauc", "logloss", "normalized_entropy", "ece", "mrr")
_LISTS = ("ndcg", "hit_rate", "revenue_ndcg", "corrected_dcg", "coverage", "popularity")


def metrics_of(ks: Iterable[int]) -> tuple[str, ...]:
    """Return the names of all metrics that a log can have, with these k."""
    return (*_ROWS, *(f"{name}@{k}" for k in ks for name in _LISTS))


def largest_bytes(policy: Policy) -> int | None:
    """Return `max_bytes` as a number. Raises: BadPolicy naming file, key and value."""
    try:
        return None if policy.max_bytes is None else parse_bytes(policy.max_bytes)
    except BadBudget:
        raise BadPolicy(
            f"{policy.file}: max_bytes: '{policy.max_bytes}' is not a size; write a number of bytes, or such as 20MB "
            "or 1.5GiB"
        ) from None


def check_policy(policy: Policy, given: Iterable[str], ks: tuple[int, ...], cluster: Unit = "user") -> None:
    """Raise BadPolicy for a size, a metric or a slices' model that can't be, NoInterval for one that can't decide.

    given: the models that are measured; cluster: what intervals are clustered by.
    """
    largest_bytes(policy)
    known = metrics_of(ks)
    for model in dict.fromkeys([*policy.against, *given]):
        for metric in policy.margins(model):
            if metric not in known:
                where = f"against.{model}" if isinstance(policy.against.get(model), dict) else "metrics"
                raise BadPolicy(
                    f"{policy.file}: {where}: no metric '{metric}'; these are {', '.join(known)} (other k: evaluate.k "
                    "in the recipe)"
                )
            if metric == "gauc" and cluster == "request":
                raise NoInterval(metric)
    named = list(dict.fromkeys([*policy.against, *given]))
    if policy.slices and policy.slices.against not in named:
        raise BadPolicy(
            f"{policy.file}: slices.against: '{policy.slices.against}' is neither in the policy's `against` nor "
            f"given by --against; these are {', '.join(named)}"
        )
