"""What would lose work, found before any is done: a worker refuses to start; `doctor` and `up` print the same."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from jobs.config import JobsConfig, from_environment, is_configured
from jobs.places import place_of
from recsys_kd.errors import RecsysKdError
from recsys_kd.flow.doctor import Finding
from recsys_kd.registry.redis import masked
from recsys_kd.registry.where import is_url
from recsys_kd.settings import load_recipe

_TIMEOUT_SECONDS = 5.0


def examine(config: JobsConfig) -> list[Finding]:
    """Return all findings about a configuration and its servers; `error` means: do not start."""
    urls = {"broker": config.broker, "state": config.state}
    if config.registry and is_url(config.registry):
        urls["registry"] = config.registry
    return [_limits(config), *_apart(urls), *(f for n, u in urls.items() for f in _server(n, u, config)), _desk(config)]


def examine_machine(config: JobsConfig) -> list[Finding]:
    """Return findings that keep no worker from its work: recipes, and ports of `up`."""
    return [*_recipes(config), _ports(config)]


def wrong(findings: list[Finding]) -> list[Finding]:
    """Return the findings that are worth telling."""
    return [f for f in findings if f.level != "ok"]


def line(finding: Finding) -> str:
    """Return a finding as one line."""
    return f"{finding.level}: {finding.check}: {finding.detail}"


def refuses(findings: list[Finding]) -> bool:
    """Return whether nothing is to be started with these findings."""
    return any(f.level == "error" for f in findings)


def _recipes(config: JobsConfig) -> list[Finding]:
    """Warn of recipes that can't be read: a share may be mounted later, and other models go on meanwhile."""
    found, first = [], dict[str, tuple[Path, tuple[Path, str]]]()
    for model in config.models:
        try:
            recipe = load_recipe(model.recipe)
        except RecsysKdError as error:
            found.append(Finding("jobs.models", "warning", f"{error}; no night of it is run until then"))
            continue
        path, place = first.setdefault(recipe.name, (model.recipe, place_of(config, recipe)))
        if place != place_of(config, recipe):
            what = f"{path} and {model.recipe} are both named '{recipe.name}', and have another store or registry"
            why = "a model has one champion; give one of them another name, or both the same places"
            found.append(Finding("jobs.models", "error", f"{what}: {why}", bad_input=True))
    return found or [Finding("jobs.models", "ok", f"{len(config.models)} scheduled")]


def _ports(config: JobsConfig) -> Finding:
    names: dict[int, str] = {}
    for name in ("flower_port", "metrics_port", "server_port", "server_grpc_port"):
        port = getattr(config, name)
        if port is not None and names.setdefault(port, name) != name:
            what = f"{names[port]} and {name} are both {port}; give each its own"
            return Finding("jobs.ports", "error", what, bad_input=True)
    return Finding("jobs.ports", "ok", ", ".join(str(port) for port in sorted(names)))


def _limits(config: JobsConfig) -> Finding:
    limits = config.limits
    if limits.lease * 2 > limits.stage:
        what = f"limits.lease {limits.lease:g} s is not well below limits.stage"
        return Finding("jobs.limits", "error", what, bad_input=True)
    return Finding("jobs.limits", "ok", f"stage {limits.stage:g} s < visibility {limits.visibility:g} s")


def _apart(urls: dict[str, str]) -> list[Finding]:
    places: dict[tuple[str, str], str] = {}
    for name, url in urls.items():
        place = _place(url)
        if place in places:
            what = f"{name} and {places[place]} share one Redis database, {masked(url)}"
            why = "what is cleared for one is lost for the other; give each its own, e.g. /1"
            return [Finding("jobs.databases", "error", f"{what}: {why}", bad_input=True)]
        places[place] = name
    return [Finding("jobs.databases", "ok", f"{len(places)} apart")]


def _place(url: str) -> tuple[str, str]:
    """Return which server and which database an address means: one server may have several names."""
    with _client(url) as client:
        named = client.connection_pool.connection_kwargs  # as the client itself reads the address, `?db=` too
        server = named.get("path") or f"{named.get('host')}:{named.get('port', 6379)}"
        with suppress(RedisError, OSError):  # it is away, which `_server` tells
            server = client.info("server")["run_id"]
    return server, str(named.get("db") or 0)


def _client(url: str) -> Any:
    return Redis.from_url(url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS)


def _server(name: str, url: str, config: JobsConfig) -> list[Finding]:
    check = f"jobs.{name}"
    try:
        with _client(url) as client:
            info = client.info()
    except AuthenticationError as error:
        why = f"{masked(url)}: {error}; mend user and password in the address of `{name}`"
        return [Finding(check, "error", why, bad_input=True)]
    except NoPermissionError:
        return [Finding(check, "ok", f"{masked(url)}: this user may not ask it what it keeps (+info)")]
    except (RedisError, OSError) as error:
        return [Finding(check, "warning", f"{masked(url)}: {error}; workers wait until it answers")]
    level = "error" if config.production else "warning"
    found = []
    if not info.get("aof_enabled"):
        found.append(Finding(check, level, f"{masked(url)}: no append-only file: a restart loses it; appendonly yes"))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(Finding(check, level, f"{masked(url)}: evicts when full ({policy}); maxmemory-policy noeviction"))
    return found or [Finding(check, "ok", masked(url))]


def _desk(config: JobsConfig) -> Finding:
    try:
        config.desk.mkdir(parents=True, exist_ok=True)
        probe = config.desk / ".doctor"
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)
    except OSError as error:
        return Finding("jobs.desk", "error", f"{config.desk}: {error.strerror}; all workers must be able to write it")
    return Finding("jobs.desk", "ok", str(config.desk))


def doctor() -> list[Finding]:
    """Return the findings for this machine's configuration; none where nothing is configured."""
    if not is_configured():
        return []
    try:
        config = from_environment()
        return examine(config) + examine_machine(config)
    except RecsysKdError as error:
        return [Finding("jobs.config", "error", str(error), bad_input=True)]
