"""One request of raw values -> scores in one call of the kernel: no step in between is Python's.

Taken where everything is of the usual types: a dict of ints, strings, floats and lists, candidates as an int64 array or
a list. `encode` and `NativeScorer` do the same for anything else, and say what is wrong with it.
"""

from collections.abc import Callable
from ctypes import addressof, pointer, py_object
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_kd.runtime import abi
from recsys_kd.runtime.encode import Encoder
from recsys_kd.runtime.native_scorer import NativeScorer
from recsys_kd.schema import Field

Floats = NDArray[np.float32]


class DirectScorer:
    """Scores with the kernel; stateless, so any number of threads may call it at once."""

    def __init__(self, scorer: NativeScorer, encoder: Encoder) -> None:
        slots = encoder.request_slots
        fields = [_field(f, encoder.has_strings(f)) for f in (*slots.keys, *slots.bags, *slots.numbers)]
        array = abi.struct_array(abi.Field, fields)
        strings = encoder.has_strings(encoder.item)
        entry = abi.Entry(pointer(scorer.model), array, len(fields), strings)
        self._kept = scorer, array, entry
        self._call, self._misses, self._counted = _function(scorer, entry), scorer.misses, scorer.counted
        self._takes_features = bool(encoder.candidate_slots.names)

    def score(self, request: Any, candidate_ids: Any, *, logits: bool) -> tuple[Floats, dict[str, int]] | None:
        """Return probabilities or logits [N], and how many lookups of each field used its fallback row.

        None where anything is unusual, wrong things included.
        """
        if self._takes_features or type(request) is not dict or type(candidate_ids) not in (list, np.ndarray):
            return None
        count = len(candidate_ids) if type(candidate_ids) is list else candidate_ids.size
        out = np.empty(count, dtype=np.float32)
        misses = self._misses()
        done = self._call(request, candidate_ids, out, not logits, misses)
        if done == abi.DONE:
            return out, {}
        if done == abi.NO_MEMORY:
            raise MemoryError("the scoring kernel found no memory to work in")
        return (out, self._counted(misses)) if done == abi.MISSED else None


def _function(scorer: NativeScorer, entry: abi.Entry) -> Callable[..., int]:
    """Return the kernel's function; one that takes nothing where the interpreter hides what it needs."""
    try:
        found: Callable[..., int] = scorer.library.direct(addressof(entry))
    except ValueError:
        return lambda *_: abi.UNUSUAL
    return found


def _field(field: Field, strings: bool) -> abi.Field:
    kinds = {"bag": (abi.INTS, abi.STRINGS), "dense": (abi.NUMBER,) * 2, "vector": (abi.VECTOR,) * 2}
    kind = kinds.get(field.kind, (abi.INT, abi.STRING))[strings]
    length = field.max_length if field.kind == "bag" else field.dim
    mean, std = (field.mean, field.std) if field.kind == "dense" else (0.0, 1.0)
    return abi.Field(py_object(field.name), kind, length, mean, std)
