"""A client of `bench_serve`: `python -m tests.benchmarks.serve_client PORT SECONDS MODELS`; prints seconds as JSON.

Calls the models in turns, each time with other candidates, over gRPC with raw tensors; the times are those of the call
alone, since making a message costs both models the same.
"""

import json
import sys
import time

import numpy as np

from recsys_kd_kserve.client import GrpcClient, tensors

CANDIDATES, MESSAGES = 1_000, 50


def messages(client: GrpcClient, model: str, items: int) -> list:
    rng, made = np.random.default_rng(0), []
    for _ in range(MESSAGES):
        request = {"user_id": 7, "device": "phone", "history": rng.integers(0, items, 20)}
        parts = tensors(request, rng.integers(0, items, CANDIDATES), None)
        inputs, raw = [d for d, _ in parts], [r for _, r in parts]
        made.append(client.messages.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw))
    return made


def main(port: str, seconds: float, models: list[str], items: int = 1_000_000) -> dict[str, list[float]]:
    with GrpcClient(f"127.0.0.1:{port}", "") as client:
        asked = {model: messages(client, model, items) for model in models}
        taken: dict[str, list[float]] = {model: [] for model in models}
        for model in models:
            client._infer(asked[model][0], timeout=30)
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            for model in models:
                began = time.perf_counter()
                client._infer(asked[model][n % MESSAGES], timeout=30)
                taken[model].append(time.perf_counter() - began)
            n += 1
    return taken


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], float(sys.argv[2]), sys.argv[3].split(","))))
