"""The options that stand in a file of ``--config``, checked against those of the command."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from llama_index_embft.cli.shared.options import Option, shortened
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SHARED: Final = ("json", "quiet", "verbose")
"""Options of every command, which say what is printed."""
_NOT_IN_FILE: Final = frozenset({"config", "help", "help_all", "install_completion", "show_completion"})


def options_in(
    path: Path, parameters: Iterable[Any], options: Mapping[str, Option]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file sets.

    Args:
        path: The YAML file.
        parameters: The command's, as typer has them.
        options: Those of settings objects, which are converted by us and not by typer.

    Returns:
        Values that typer converts, and values that are converted, by name.

    Raises:
        ConfigError: The file cannot be read, a name is not known, or a value is of another kind.
    """
    from llama_index_embft.cli.shared.config_file import read_config_file

    known = {parameter.name: parameter for parameter in parameters if parameter.name not in _NOT_IN_FILE}
    typed: dict[str, Any] = {}
    made: dict[str, Any] = {}
    for key, value in read_config_file(path).items():
        # A parameter of Python may have a final underscore, where the plain name is a word of the language.
        name = next((n for n in known if n.rstrip("_") == str(key).replace("-", "_")), None)
        if name is None:
            raise unknown_key(path, key, (n.rstrip("_") for n in known))
        if name in typed or name in made:
            raise ConfigError(f"{path}: {name} is set twice; keep one.")
        if name in options:
            if value is not None or "None" in options[name].kinds:
                made[name] = options[name].convert(value, f"{name} in {path}")
        elif value is not None:
            typed[name] = _as_typed(value, known[name], f"{name} in {path}")
    return typed, made


def shared_options_in(path: Path, parameters: Iterable[Any]) -> dict[str, Any]:
    """The options of every command that a file sets, for a command that reads the others itself.

    Args:
        path: The YAML file.
        parameters: The command's, as typer has them.

    Raises:
        ConfigError: The file cannot be read, or one of these values is of another kind.
    """
    from llama_index_embft.cli.shared.config_file import read_config_file

    known = {parameter.name: parameter for parameter in parameters if parameter.name in SHARED}
    content = read_config_file(path)
    set_here = {name: content[name] for name in known if content.get(name) is not None}
    return {name: _as_typed(value, known[name], f"{name} in {path}") for name, value in set_here.items()}


def unknown_key(path: Path, key: Any, known: Iterable[str], within: str = "") -> ConfigError:
    """The error for a name that is no option, with the nearest that is one.

    Args:
        path: The file.
        key: What stands there.
        known: Names of options.
        within: The group that it stands in.
    """
    names = sorted(known)
    near = get_close_matches(str(key).replace("-", "_"), names, n=1)
    others = f"there are {', '.join(names)}." if within or len(names) <= 20 else "--help-all lists the options."
    advice = f"did you mean {near[0]!r}?" if near else others
    return ConfigError(f"{path}: unknown key {shortened(str(key))}{within}; {advice}")


def _as_typed(value: Any, parameter: Any, shown: str) -> Any:
    """A value as it would be typed; typer converts and checks it."""
    several = parameter.multiple or parameter.nargs != 1
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise ConfigError(f"{shown} is {shortened(value)}; it must be true or false.")
        return value
    if isinstance(value, list) and several:
        return [str(item) for item in value]
    if isinstance(value, (list, dict, bool)):
        kind = "a value or a list of them" if several else "one value"
        raise ConfigError(f"{shown} is {shortened(value)}; it must be {kind}.")
    return [str(value)] if several else str(value)
