"""What another policy would show in each place, read from its chances of what was shown.

The direct method sums over everything that the policy might have shown. A log holds its chances of the shown items
only; where a chance is a function of place and item, the log's own rows fill the table. Items never shown in a place
share what chance is left there, and count with that place's mean reward.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CELLS, SAME, SPARE = 20_000_000, 1e-4, 0.01


def unseen_note(table: Floats, place: Ints) -> str:
    """Return what a table says of items never shown, where they have a hundredth of its chance over all rows [N]."""
    share = float(table[place, -1].mean())
    if share < SPARE:
        return ""
    return (
        f"its chances of what the log shows add up to {1 - share:.3g} on average; the other {share:.3g} goes to items "
        "never shown in that place, and DM, DR and switch-DR count these with the place's mean reward. If it shows "
        "nothing else, its chances are not those it draws with"
    )


def policy_table(chance: Floats, place: Ints, item: Ints) -> tuple[Floats | None, str]:
    """Return the policy's chances [places, items + 1], rows summing to 1, the last column for items never shown there.

    chance: of the shown item, per row [N]; place, item: dense [N]. None, and why, where no such table exists.
    """
    places, items = int(place.max()) + 1, int(item.max()) + 1
    if places * (items + 1) > MOST_CELLS:
        return None, f"{places:,} places x {items:,} items are too many for a reward table"
    cell = place * items + item
    low, high = np.full(places * items, np.inf), np.full(places * items, -np.inf)
    np.minimum.at(low, cell, chance)
    np.maximum.at(high, cell, chance)
    seen = high >= 0
    varied = np.flatnonzero(seen & (high - low > SAME))
    if len(varied):
        return None, (
            f"its chance of one item in one place varies from row to row ({len(varied):,} times, the first from "
            f"{low[varied[0]]:.4g} to {high[varied[0]]:.4g}), so what else it would have shown is not known"
        )
    table = np.where(seen, high, 0.0).reshape(places, items)
    total = table.sum(axis=1)
    if total.max() > 1 + SPARE:
        return None, f"its chances in place {int(total.argmax())} add up to {total.max():.3g}: no distribution of items"
    table /= np.maximum(total, 1.0)[:, None]
    return np.column_stack([table, 1.0 - table.sum(axis=1)]), ""
