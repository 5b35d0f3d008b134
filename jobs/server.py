"""The server beside the workers: `python -m jobs.server FOLDER` keeps `recsys-kd serve` running.

It serves every model of one registry that has a champion, from the first one on. Later champions the server takes over
by itself; a model that is published for the first time is loaded into it while it runs, and one that can't be loaded
holds up no other. FOLDER holds what was served last, by which the next start goes. Models of other registries are named
in its log.
"""

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from jobs.config import JobsConfig, from_environment
from jobs.desk import DeskUnwritable
from jobs.live import Live, keep, kept, left_out, published
from jobs.logs import configure_logging
from jobs.serving import Serving
from recsys_kd.registry.redis import masked

log = logging.getLogger("recsys_kd.jobs")
_LOOK_SECONDS = 2.0


class Keeper:
    """Runs the server, and tells it of new models."""

    def __init__(self, config: JobsConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.stopping = threading.Event()
        self.serving: Serving | None = None
        self.answered = False
        self.failures = 0
        self._said: set[str] = set()
        self._looked = float("-inf")

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """End, after the server has drained."""
        self.stopping.set()
        if self.serving is not None:
            self.serving.process.terminate()

    def run(self) -> int:
        """Look until told to stop, or until a server that answered has ended; return its exit code."""
        while not self.stopping.is_set():
            if self.serving is None:
                self._start()
            elif (code := self.serving.process.poll()) is None:
                self._tell(self.serving)
            elif self.answered:
                return code or 1  # it ended unasked; whoever supervises this process starts it again
            else:
                self.failures, self.serving = self.failures + 1, None
            self.stopping.wait(_LOOK_SECONDS)  # neither a registry nor a server tells of what is new
        if self.serving is None:
            return 0
        self.serving.process.terminate()  # it may have been started when `stop` looked
        return max(0, self.serving.process.wait())  # below: the signal came before it could drain

    def _start(self) -> None:
        before = kept(self.folder)
        live = published(self.config, before)
        if live is None:
            return
        if before is not None and masked(live.registry) != before.registry:
            self._say(f"{masked(live.registry)} is served now; no recipe names {before.registry} any more")
        models = live.models
        if self.failures:  # one of them keeps the server from starting: the others are loaded into it later
            models = (models[(self.failures - 1) % len(models)],)
        self.serving = Serving(self.config, self.folder, Live(live.registry, models))

    def _tell(self, serving: Serving) -> None:
        """Once it answers, tell the server of every model that it does not serve yet."""
        if not self.answered and not serving.answers():
            return
        if self.answered and time.monotonic() - self._looked < self.config.limits.reconcile:
            return
        self.answered, self._looked = True, time.monotonic()
        found = published(self.config, kept(self.folder))
        if found is not None and found.registry != serving.registry:
            serving.process.terminate()  # no recipe names its registry any more: the next start takes the other one
            return
        for model in found.models if found is not None else ():
            if model not in serving.models and (reason := serving.load(model)):
                self._say(f"{model} is not served yet: {reason}; it is tried again")
        self._keep(Live(serving.registry, tuple(serving.models)))
        for sentence in left_out(self.config, serving.registry):
            self._say(sentence)

    def _keep(self, live: Live) -> None:
        try:
            keep(self.folder, live)
        except DeskUnwritable as error:
            self._say(f"{error}; until then a new start does not know what was served last")

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            log.warning(sentence)


def main() -> None:
    """Keep a server running until SIGTERM or SIGINT."""
    folder, config = Path(sys.argv[1]), from_environment()
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(config, folder)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.stop)
    sys.exit(keeper.run())


if __name__ == "__main__":
    configure_logging("INFO")
    main()
