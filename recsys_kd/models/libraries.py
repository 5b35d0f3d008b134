"""TorchRec and FBGEMM, imported here and nowhere else: what they say of themselves to everybody is not said to users.

Silenced are exactly these, which are true of the pinned versions and ask nothing of whoever runs a night: FBGEMM's
notes that optional lookup kernels and an old module name are gone, torch.fx's that `is_fx_tracing` changed its meaning.
"""

import logging
import warnings

_AT_IMPORT = (
    r"\s*\x1b\[93m\s*Failed to import: fbgemm_gpu\.split_embedding_codegen_lookup_invokers\.",
    r"\s*\x1b\[93m\s*The Python module fbgemm_gpu\.split_table_batched_embeddings_ops is now DEPRECATED",
)
_FX_LOGGER, _FX_NOTE = "torch.fx._symbolic_trace", "is_fx_tracing will return true for both"

with warnings.catch_warnings():
    for _message in _AT_IMPORT:
        warnings.filterwarnings("ignore", _message, DeprecationWarning)
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

# Said by the first lookup, not by an import.
logging.getLogger(_FX_LOGGER).addFilter(lambda record: not record.getMessage().startswith(_FX_NOTE))

__all__ = [
    "DistributedModelParallel",
    "EmbOptimType",
    "EmbeddingBagCollection",
    "EmbeddingBagCollectionSharder",
    "EmbeddingBagConfig",
    "EmbeddingShardingPlanner",
    "FusedEmbeddingBagCollection",
    "KeyedJaggedTensor",
    "KeyedTensor",
    "ParameterConstraints",
    "PoolingType",
    "RowWiseAdagrad",
    "Topology",
    "WeightDecayMode",
]
