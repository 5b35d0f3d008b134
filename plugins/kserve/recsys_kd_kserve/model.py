"""A registry's model as a KServe model: tensors in, probabilities out, the version in every response."""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from recsys_kd.runtime.encode import BadRequest
from recsys_kd.runtime.service import Answer, Service, VersionNotLoaded
from recsys_kd.runtime.versions import NoModel
from recsys_kd_kserve.config import Refused
from recsys_kd_kserve.kserve_api import InferOutput, InferRequest, InferResponse, InvalidInput, Model
from recsys_kd_kserve.tensors import Asked, Decoder, Given, Tensor

log = logging.getLogger("recsys_kd.serving")
_INLINE = 2_000
"""Candidates that are scored in the event loop: about 0.1 ms, no more than handing them to a thread would take."""
OUTPUTS = ("probability", "logit")


class RankingModel(Model):  # type: ignore[misc]
    """Answers with a service; `executor` scores what would block the event loop for long."""

    def __init__(self, service: Service, max_candidates: int, executor: Executor) -> None:
        super().__init__(service.watcher.model)
        self.service, self.max_candidates, self.executor = service, max_candidates, executor
        self._decoders: dict[str, Decoder] = {}

    def load(self) -> bool:
        """Load the champion and begin to watch. Raises: NoModel."""
        self.service.start()
        self.ready = True
        return True

    def start(self) -> None:
        """Do nothing: `load` did."""

    def stop(self) -> None:
        """Take no more requests, and end the threads."""
        self.ready = False
        self.service.stop()

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the inputs of the version that serves."""
        return self.decoder().inputs()

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the outputs; `logit` where it is asked for."""
        return [{"name": name, "datatype": "FP32", "shape": [-1]} for name in OUTPUTS]

    def decoder(self, version: int | None = None) -> Decoder:
        """Return the decoder of a version in memory, of the champion where it is not there."""
        resident = self.service.watcher.serving.resident()
        live = next((x for x in resident if x.number == version), resident[0])
        if live.digest not in self._decoders:
            kept = {x.digest: self._decoders[x.digest] for x in resident if x.digest in self._decoders}
            self._decoders = kept | {live.digest: Decoder(live.ranker.schema, self.max_candidates)}
        return self._decoders[live.digest]

    def versions(self) -> list[str]:
        """Return the versions in memory, the champion first."""
        return [str(live.number) for live in self.service.watcher.serving.resident()]

    async def predict(
        self, payload: InferRequest, headers: Mapping[str, str] | None = None, response_headers: Any = None
    ) -> InferResponse:
        """Return the scores of a request's candidates. Raises: Refused."""
        if not isinstance(payload, InferRequest):
            raise Refused(400, "the Open Inference Protocol v2 is spoken here; v1 is not")
        tensors = [Tensor(i.name, i.datatype, tuple(i.shape), i.data, i._raw_data) for i in payload.inputs]
        names = [o.name for o in payload.request_outputs or ()]
        given = await self.scored(Asked(tensors, names, payload.model_version))
        outputs = [InferOutput(name, list(x.shape), "FP32", x) for name, x in given.outputs.items()]
        return InferResponse(payload.id or "", self.name, outputs, given.version, parameters={"digest": given.digest})

    async def scored(self, asked: Asked) -> Given:
        """Return a request's answer; a long one is not scored in the event loop. Raises: Refused."""
        if any(n > _INLINE for tensor in asked.tensors for n in tensor.shape):
            return await asyncio.get_running_loop().run_in_executor(self.executor, self.answer, asked)
        return self.answer(asked)

    def answer(self, asked: Asked) -> Given:
        """Return a request's answer. Raises: Refused."""
        names = asked.outputs or ("probability",)
        if unknown := [n for n in names if n not in OUTPUTS]:
            raise Refused(400, f"unknown output '{unknown[0]}'; this model gives {' and '.join(OUTPUTS)}")
        try:
            found = self._score(asked, logits="logit" in names)
        except BadRequest as error:
            raise Refused(400, str(error)) from None
        except VersionNotLoaded as error:
            raise Refused(404, str(error)) from None
        except NoModel as error:
            raise Refused(503, str(error)) from None
        outputs = {"probability": found.scores}
        if found.probabilities is not None:
            both = {"probability": found.probabilities, "logit": found.scores}
            outputs = {name: both[name] for name in names}
        return Given(outputs, str(found.version), found.digest)

    def _score(self, asked: Asked, *, logits: bool) -> Answer:
        version = _number(asked.version)
        try:
            found = self.decoder(version).decode(asked.tensors)
        except Refused:
            self.service.stats.refused()
            raise
        return self.service.score(
            found.request, found.candidates, found.features or None, logits=logits, version=version
        )


def _number(version: str | None) -> int | None:
    if not version:
        return None
    if not version.isascii() or not version.isdigit():
        raise Refused(404, f"version '{version[:40]}' is not a number; leave it out, and the champion answers")
    return int(version[:18])


def status_of(error: Exception) -> tuple[int, str]:
    """Return an error's HTTP status and message; what is no refusal is a defect, and is logged."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, InvalidInput | NoModel):
        return 404 if isinstance(error, NoModel) else 400, str(error)
    log.error("a request failed: %s", error, exc_info=error)
    return 500, f"{type(error).__name__}: a defect of the server, see its log"
