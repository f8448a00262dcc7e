"""YAML files that people write: a key that stands twice is a mistake, and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from model_export.errors import ConfigInvalid


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.update([key.value] if isinstance(key.value, str) else [])
        return node


def read(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigInvalid: not readable, not YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path}: not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigInvalid(f"{path}: nested too deeply") from error
