"""Training says nothing that asks nothing of anybody, and hides nothing else."""

import logging
import subprocess
import sys

LOOKUP = """
import logging, warnings
from recsys_kd.models import libraries as l
import torch
tables = l.FusedEmbeddingBagCollection(
    [l.EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=3, feature_names=["f"])],
    optimizer_type=l.RowWiseAdagrad, optimizer_kwargs={"lr": 0.1}, device=torch.device("cpu"))
rows = l.KeyedJaggedTensor(keys=["f"], values=torch.tensor([0, 2]), lengths=torch.tensor([1, 1]))
print(tuple(tables(rows).values().shape))
logging.getLogger("torch.fx._symbolic_trace").warning("another note")
warnings.warn("Failed to import: something else", DeprecationWarning)
"""


def test_what_libraries_say_of_themselves_is_not_shown_and_all_else_is():
    done = subprocess.run([sys.executable, "-W", "default", "-c", LOOKUP], capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 4)\n"
    for hidden in ("is_fx_tracing", "lookup_invokers", "DEPRECATED"):
        assert hidden not in done.stderr
    assert "another note" in done.stderr and "something else" in done.stderr


def test_the_note_that_is_hidden_is_still_what_torch_says(caplog):
    """Else the filter is of no use any more and should go."""
    from torch.fx import _symbolic_trace

    logger = logging.getLogger(_symbolic_trace.__name__)
    filters = list(logger.filters)
    logger.filters.clear()
    try:
        _symbolic_trace.is_fx_tracing_warning.__wrapped__()
    finally:
        logger.filters.extend(filters)
    assert "is_fx_tracing will return true for both" in caplog.text
