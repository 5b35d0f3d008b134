"""The models of a server: which are served, and taking in or leaving out others of the registry while it runs."""

from collections.abc import Callable
from typing import Any

from recsys_kd_kserve.config import Refused
from recsys_kd_kserve.kserve_api import DataPlane, ModelNotFound, ModelRepository
from recsys_kd_kserve.model import RankingModel


class Repository(ModelRepository):  # type: ignore[misc]
    """Holds models by name; `make` gives one of the registry that is not loaded yet."""

    def __init__(self, make: Callable[[str], RankingModel]) -> None:
        super().__init__()
        self._make = make

    def load(self, name: str) -> bool:
        """Serve a model of the registry, or, if it is served, look at the registry now. Raises: NoModel."""
        known = self.models.get(name)
        if known is not None:
            known.service.watcher.poll()
            return True
        model = self._make(name)
        model.load()
        self.update(model)
        return True

    def unload(self, name: str) -> None:
        """Serve a model no more. Raises: KeyError."""
        self.models.pop(name).stop()

    def index(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """Return every version in memory as the repository extension lists it; only those that answer if `ready`."""
        found = []
        for name, model in sorted(self.models.items()):
            serving = model.service.watcher.serving
            names = {"champion": serving.champion, "previous": serving.previous, "challenger": serving.challenger}
            for live in serving.resident():
                reason = ", ".join(alias for alias, other in names.items() if other is live)
                state = "READY" if model.ready else "UNAVAILABLE"
                found.append({"name": name, "version": str(live.number), "state": state, "reason": reason})
        return [f for f in found if f["state"] == "READY" or not ready]


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, which is ready when its models are, and knows versions."""

    def __init__(self, repository: Repository, wanted: tuple[str, ...]) -> None:
        super().__init__(model_registry=repository)
        self.wanted = wanted
        self.draining = False

    async def ready(self) -> bool:
        """Return whether every model that was asked for answers, and the server is not about to end."""
        models = self.model_registry.get_models()
        return not self.draining and bool(models) and all(n not in self.wanted or m.ready for n, m in models.items())

    def model(self, name: str, version: str | None = None) -> RankingModel:
        """Return a model, with a version in memory if one is asked for. Raises: Refused."""
        try:
            found = self.get_model_from_registry(name)
        except ModelNotFound:
            served = ", ".join(sorted(self.model_registry.get_models())) or "none"
            raise Refused(404, f"no model '{name[:100]}' is served here; served are: {served}") from None
        if version and isinstance(found, RankingModel) and version not in found.versions():
            loaded = ", ".join(found.versions())
            raise Refused(404, f"model '{name}': version '{version[:40]}' is not loaded; loaded are {loaded}")
        model: RankingModel = found
        return model

    def answering(self, name: str, version: str | None = None) -> RankingModel:
        """Return a model that takes requests. Raises: Refused."""
        found = self.model(name, version)
        if not found.ready:
            raise Refused(503, f"model '{name}' is not ready")
        return found

    async def get_model(self, name: str) -> RankingModel:
        """Return a model that takes requests; KServe's own would load one again that is being unloaded."""
        return self.answering(name)

    async def model_metadata(self, model_name: str, model_version: str | None = None) -> dict[str, Any]:
        """Return a model's inputs, outputs and versions. Raises: Refused."""
        model = self.model(model_name, model_version)
        found: dict[str, Any] = await super().model_metadata(model_name)
        return found | {"platform": "recsys_kd", "versions": model.versions()}
