"""YAML that others may have written: the one place where the package parses it, within limits.

In: a text. Out: mappings, lists and plain values. Aliases of aliases, brackets without end and
values that are none are refused within a second: as `yaml.YAMLError`, whatever went wrong.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_CHARACTERS = 200_000
MOST_DEPTH = 50
"""Mappings and lists inside one another; our own files have 5."""
MOST_NODES = 10_000
"""Keys and values, those behind an alias counted each time."""


class _Loader(yaml.SafeLoader):
    """Count what is composed, and stop where it is too much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and all below it."""
        alias = self.check_event(yaml.AliasEvent)
        before = self._nodes
        self._nodes += 1
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise yaml.YAMLError(f"nested more than {MOST_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and alias:
            if node not in self._sizes:
                raise yaml.YAMLError("an alias that holds itself")
            self._nodes += self._sizes[node]
        elif node is not None:
            self._sizes[node] = self._nodes - before
        if self._nodes > MOST_NODES:
            raise yaml.YAMLError(f"more than {MOST_NODES} entries")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; what 64 bits do not hold nobody means."""
        value: int = super().construct_yaml_int(node)
        if abs(value) >= 1 << 63:
            raise yaml.YAMLError("a number that 64 bits do not hold")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_yaml(text: str) -> Any:
    """Return what YAML says; whatever is wrong with it is a `yaml.YAMLError`."""
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters, {MOST_CHARACTERS} are read")
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError:
        raise
    # Dates that there are not, numbers of 5,000 digits, tags on what does not fit them.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(f"a value that is none: {type(error).__name__}: {error}") from None
    finally:
        loader.dispose()
