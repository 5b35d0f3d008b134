"""All of kserve that this plugin builds on, imported in this one place.

Importing kserve parses `sys.argv` as its own command line, so it gets to see an empty one; and it writes a line per
request, so it is told to write warnings only. Raises: KServeMissing.
"""

import logging
import sys
from importlib.metadata import PackageNotFoundError, version

from recsys_kd.errors import InputError

BUILT_ON = "0.21."


class KServeMissing(InputError):
    """kserve is not installed, or in a version whose insides are not those built on here."""


def _check() -> None:
    try:
        found = version("kserve")
    except PackageNotFoundError:
        raise KServeMissing("kserve is not installed; pip install recsys-kd-kserve[serve]") from None
    if not found.startswith(BUILT_ON):
        raise KServeMissing(
            f"kserve {found} is installed, this plugin is built on {BUILT_ON}x; pip install kserve==0.21.0"
        )


_check()
_arguments, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve import Model, ModelRepository
    from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server as add_servicer
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import InferInput, InferOutput, InferRequest, InferResponse, RequestedOutput
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
except ImportError as error:
    raise KServeMissing(f"{error}; pip install recsys-kd-kserve[serve]") from None
finally:
    sys.argv = _arguments
for _name in ("kserve", "kserve.trace"):
    logging.getLogger(_name).setLevel(logging.WARNING)

__all__ = [
    "DataPlane", "InferInput", "InferOutput", "InferRequest", "InferResponse", "InferenceServicer", "InvalidInput",
    "Model", "ModelNotFound", "ModelNotReady", "ModelRepository", "ModelRepositoryExtension", "RequestedOutput",
    "ServerNotReady", "add_servicer", "messages", "register_v2_endpoints",
]  # fmt: skip
