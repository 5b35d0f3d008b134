"""YAML files as people write them: every mistake that YAML would swallow is told, with its line.

Plain YAML keeps the last of two equal keys without a word, and makes a date of `2026-01-31` (and a traceback of
`2026-13-45`). Here the first is an error, and the second is the text that was written.
"""

from pathlib import Path
from typing import Any

import yaml

from recsys_kd.errors import InputError

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class RepeatedKey(yaml.YAMLError):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class it comes from
        first: [(tag, pattern) for tag, pattern in found if tag != _TIMESTAMP]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping as it is written, before others are merged into it (`<<`). Raises: RepeatedKey."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    before = lines[key.tag, key.value]
                    raise RepeatedKey(f"key '{key.value}' stands in line {before} and again in line {line}; remove one")
                lines[key.tag, key.value] = line
        return node


def load_yaml(path: Path, what: str, error: type[InputError]) -> Any:
    """Return what a YAML file says; dates stay text. Raises: `error` naming file and line; `what` it should be."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as failed:
        raise error(f"{path}: can't be read ({failed.strerror}); give the path of {what}") from None
    except UnicodeDecodeError as failed:
        raise error(f"{path}: byte {failed.start} is not UTF-8; save the file as UTF-8") from None
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RepeatedKey as failed:
        raise error(f"{path}: {failed}") from None
    except yaml.MarkedYAMLError as failed:
        raise error(f"{path}: {_place(failed)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as failed:
        why = " ".join(str(failed).split()) or type(failed).__name__
        raise error(f"{path}: not valid YAML ({why}); mend it, or write it again as plain text") from None


def _place(failed: yaml.MarkedYAMLError) -> str:
    """Return where YAML could not go on, and what is usually wrong there."""
    mark = failed.problem_mark or failed.context_mark
    at = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return (
        f"{at}not valid YAML ({failed.problem or failed.context}); mend this line or the one before: close brackets, "
        "close quotes, indent by spaces, put a space after each colon"
    )
