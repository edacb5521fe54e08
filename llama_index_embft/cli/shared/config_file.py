"""The YAML file of ``--config``: read with bounds, so that no file can take the memory or the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from llama_index_embft._core.checks import first_line
from llama_index_embft.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES: Final = 2**20  # of settings a person writes; far below it YAML gets slow


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML is untyped
    """Refuses what YAML's own loader takes in silence or dies of.

    - A key that stands twice: it keeps the last.
    - Anchors: a few hundred bytes of them unfold to any size.
    - Dates: ``out: 2026-11-31`` is the name of a folder.
    """

    yaml_implicit_resolvers: Final = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent) or getattr(self.peek_event(), "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors (& and *) are not read; write the value out", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, ConfigError, RecursionError):
            raise
        except Exception as err:  # a value that does not fit its tag: PyYAML lets int() and others speak for themselves
            kind = node.tag.rpartition(":")[2]
            problem = f"{str(node.value)[:40]!r} cannot be read as !!{kind}; write a plain value"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from err

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{self.name}: {key} is set twice; keep one.")
        return super().construct_mapping(node, deep)


def read_config_file(path: Path) -> dict[Any, Any]:
    """The options that stand in a YAML file.

    Raises:
        ConfigError: It cannot be read, is too large, or is not ``name: value``.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"The file {path} has {size:,} bytes; a file of options has at most {_MOST_BYTES:,}.")
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_BYTES + 1)  # a device has no size
    except ConfigError:
        raise
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"The file {path} cannot be read: {reason}; give --config a YAML file.") from err
    loader = None
    try:
        loader = _Loader(text)  # refuses characters that YAML does not allow
        loader.name = str(path)
        content = loader.get_single_data()
    except ConfigError:
        raise
    except RecursionError as err:
        raise ConfigError(f"{path} is nested too deeply; it must hold options as 'name: value', a line each.") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(
            f"{path} is not valid YAML{where}: {getattr(err, 'problem', None) or first_line(err)}."
        ) from err
    except Exception as err:  # an escape of no character, for one
        raise ConfigError(f"{path} is not valid YAML: {first_line(err)[:200]}.") from err
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold options as 'name: value', a line each; it holds {content!r:.60}.")
    return content
