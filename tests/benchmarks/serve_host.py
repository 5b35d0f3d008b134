"""The server of `bench_serve`, with a trivial model beside the registry's.

`python -m tests.benchmarks.serve_host REGISTRY POLL` prints its ports, and ends with SIGTERM.

The trivial model reads the candidates' tensor and answers zeros: what KServe and gRPC take by themselves.
"""

import sys

import numpy as np

from recsys_kd.runtime.plugins import ServingConfig
from recsys_kd_kserve.config import ServerConfig
from recsys_kd_kserve.kserve_api import InferOutput, InferRequest, InferResponse, Model
from recsys_kd_kserve.server import Server


class Trivial(Model):
    def __init__(self) -> None:
        super().__init__("trivial")
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        ids = next(i for i in payload.inputs if i.name == "item_id").as_numpy()
        scores = np.zeros(len(ids), np.float32)
        return InferResponse(payload.id, self.name, [InferOutput("probability", [len(ids)], "FP32", scores)])


def started(server: Server) -> None:
    server.repository.update(Trivial())
    print(server.port, server.grpc_port, flush=True)


if __name__ == "__main__":
    registry, poll = sys.argv[1:]
    config = ServingConfig("conformance", registry, poll_seconds=float(poll))
    Server(ServerConfig(("conformance",), config, 0, 0)).run(started)
