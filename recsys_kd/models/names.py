"""Fields' names as keys of torch's containers, which refuse dots and names of their own methods (`type`, `items`)."""

_PREFIX = "f:"


def key(name: str) -> str:
    """Return the key of a field or vocabulary; field names hold no `/`."""
    return _PREFIX + name.replace(".", "/")


def plain(found: str) -> str:
    """Return the name behind a key."""
    return found.removeprefix(_PREFIX).replace("/", ".")
