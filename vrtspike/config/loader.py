"""YAML files and dotted overrides -> one frozen, validated `Config`.

Defaults (`vrtspike.settings`) -> the file named by `base:` (relative to the file that names it)
-> the file itself -> overrides `a.b=c`, whose value is read as YAML, or, of a text or
a path, as it was typed. Mappings merge key by key,
everything else replaces. An unknown key, a value of the wrong type, or settings that contradict
each other raise ConfigError, naming the file or override it came from and the nearest known key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vrtspike.config.config import Config
from vrtspike.config.roles import Role, SameInTrials
from vrtspike.errors import ConfigError
from vrtspike.storage.yaml_text import parse_yaml

Tree = dict[str, Any]
NOTHING = ("", "null", "~")
"""How YAML writes that a setting has no value."""
TEXT_FAULTS = ("string_type", "path_type", "is_instance_of")
"""Pydantic's kinds of errors on values that should have been a text."""
Sources = dict[tuple[str, ...], str]
"""Where each key was last set: a file, or an override as it was typed."""


def load_config(
    path: Path | str | None, overrides: Sequence[str] = (), *, base: Path | str | None = None
) -> Config:
    """Read a configuration file and its bases, apply overrides, and validate the whole.

    Without a file the overrides apply to the defaults. `base` replaces the one that the file names.
    """
    sources: Sources = {}
    tree = {} if path is None else _read_with_bases(Path(path), (), sources, base)
    for override in overrides:
        _apply_override(tree, override, sources)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, str(path or "defaults"), sources) from None


def load_saved(path: Path) -> Config:
    """Read the configuration that a run has written, which is whole: it names no other file."""
    tree = _read_mapping(path, ())
    if "base" in tree:
        raise ConfigError(
            "the configuration of a run names another file as its base",
            where=path,
            expected="all settings, as training writes them",
            fix="leave `base` away",
        )
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, str(path), {}) from None


def change(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return the configuration with some settings, by their dotted keys, replaced.

    Raises ConfigError for one that is unknown, or does not fit its type or the others.
    """
    # JSON would drop the keys of a place's URI.
    tree, sources = config.model_dump(), Sources()
    for dotted, value in settings.items():
        path = tuple(dotted.split("."))
        check_known(dotted, f"{dotted}={value}")
        _merge(tree, _nested(path, value), (), f"{dotted}={value}", sources)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, "these settings together", sources) from None


def dump_config(config: Config) -> str:
    """Write every setting as YAML that `load_config` reads back to an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """List the dotted keys of all settings, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        inner = _section_of(field.annotation)
        if inner is not None:
            keys.extend(known_keys(inner, f"{prefix}{name}."))
    return keys


def keys_with(*roles: Role, section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """List the dotted keys of the settings, or whole sections, that have one of some roles."""
    keys = []
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        if any(role in field.metadata for role in roles):
            keys.append(prefix + name)
        elif inner is not None:
            keys.extend(keys_with(*roles, section=inner, prefix=f"{prefix}{name}."))
    return keys


def same_in_trials(section: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """Return the settings that a sweep cannot change, and why."""
    found = {}
    for name, field in section.model_fields.items():
        for role in field.metadata:
            if isinstance(role, SameInTrials):
                found[prefix + name] = role.reason
        inner = _section_of(field.annotation)
        if inner is not None:
            found |= same_in_trials(inner, f"{prefix}{name}.")
    return found


def check_known(dotted: str, where: str) -> None:
    """Raise ConfigError, naming the nearest one, for a setting that there is not."""
    path = tuple(dotted.split("."))
    if dotted not in known_keys() and not _inside_free_mapping(path):
        raise _unknown_key(path, where)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def known_parts() -> set[str]:
    """Return the names of all sections and settings."""
    return {part for key in known_keys() for part in key.split(".")}


def within(key: str, names: Iterable[str]) -> bool:
    """Tell whether a dotted key is one of some settings, or lies in one of some sections."""
    return any(key == name or key.startswith(name + ".") for name in names)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation holds, also in `Section | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _read_with_bases(
    path: Path, above: tuple[Path, ...], sources: Sources, instead: Path | str | None = None
) -> Tree:
    """Read a file over its base, or over another one; `above` holds the files that led here."""
    tree = _read_mapping(path, above)
    base = tree.pop("base", None)
    if instead is not None:
        base = str(Path(instead).absolute())
    merged: Tree = {}
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(
                "`base` is not the name of a file", where=path, got=repr(base), expected="a path"
            )
        target = path.parent / base
        chain = (*above, path)
        if target.resolve() in {file.resolve() for file in chain}:
            raise ConfigError("configurations are each other's base", where=path, got=base)
        merged = _read_with_bases(target, chain, sources)
    _merge(merged, tree, (), str(path), sources)
    return merged


def _read_mapping(path: Path, above: tuple[Path, ...]) -> Tree:
    """Parse one YAML file that must hold a mapping of section names."""
    where = f"{path}, the base of {above[-1]}" if above else f"{path}"
    if not path.exists():
        raise ConfigError("no such configuration file", where=where, fix="check --config")
    if not path.is_file():
        raise ConfigError("configuration is not a file", where=where, got="a folder")
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"configuration is not YAML: {problem}", where=where) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            "configuration is not a mapping",
            where=where,
            got=type(tree).__name__,
            expected="sections such as `train:` with settings under them",
        )
    return tree


def _merge(into: Tree, tree: Mapping[Any, Any], at: tuple[str, ...], name: str, s: Sources) -> None:
    """Lay `tree` over `into`, remembering that its keys came from `name`."""
    for raw, value in tree.items():
        key, place = str(raw), (*at, str(raw))
        s[place] = name
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, place, name, s)
        else:
            into[key] = value


def _apply_override(tree: Tree, override: str, sources: Sources) -> None:
    """Set one `a.b=c` in the tree."""
    dotted, equals, text = override.partition("=")
    path = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(
            "an override is not key=value", got=repr(override), expected="train.steps=100"
        )
    check_known(dotted.strip(), f"override {override}")
    value: Any = text
    if not _is_typed_text(path, text):
        with suppress(yaml.YAMLError):
            value = parse_yaml(text)
    _merge(tree, _nested(path, value), (), f"override {override}", sources)


def _is_typed_text(path: Sequence[str], text: str) -> bool:
    """Tell whether an override's value is taken as it was typed: that of a text or path."""
    section: type[BaseModel] | None = Config
    annotation: Any = None
    for key in path:
        if section is None or key not in section.model_fields:
            return False  # in a mapping
        annotation = section.model_fields[key].annotation
        section = _section_of(annotation)
    kinds = _kinds(annotation)
    if text in NOTHING and type(None) in kinds:
        return False
    if kinds & {list, tuple} and text.lstrip().startswith("["):
        return False
    return text in kinds or kinds <= {str, Path, type(None), list, tuple}


def _kinds(annotation: Any) -> set[Any]:
    """Return the types and the values of literals that an annotation allows, lists' inside too."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(inner[0])
    if origin is Literal:
        return {*inner, Literal}
    found = {origin} if origin in (list, tuple, dict) else set[Any]()
    if not inner:
        return {annotation}
    return found.union(*(_kinds(one) for one in inner if one is not Ellipsis))


def _nested(path: Sequence[str], value: Any) -> Tree:
    """Return the tree that holds one value at a path."""
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


def _inside_free_mapping(path: tuple[str, ...]) -> bool:
    """Tell whether a key lies in a setting that is itself a mapping (such as scenes.sequences)."""
    section: type[BaseModel] | None = Config
    for index, key in enumerate(path[:-1]):
        if section is None or key not in section.model_fields:
            return False
        annotation = section.model_fields[key].annotation
        section = _section_of(annotation)
        if section is None:
            return getattr(annotation, "__origin__", None) is dict and index == len(path) - 2
    return False


def _unknown_key(path: Sequence[str], where: str) -> ConfigError:
    """Build the error of a key that no section has."""
    dotted = ".".join(path)
    nearest = difflib.get_close_matches(dotted, known_keys(), n=1, cutoff=0.5)
    if not nearest:
        same_name = [key for key in known_keys() if key.split(".")[-1] == path[-1]]
        nearest = same_name or difflib.get_close_matches(
            path[0], list(Config.model_fields), n=1, cutoff=0.0
        )
    return ConfigError(f"unknown setting {dotted}", where=where, fix=f"did you mean {nearest[0]}?")


def _explain(error: ValidationError, path: str, sources: Sources) -> ConfigError:
    """Turn the first problem that pydantic found into one line, and count the others."""
    problems = error.errors()
    first: ErrorDetails = problems[0]
    place = tuple(str(part) for part in first["loc"])
    source = next(
        (sources[place[:n]] for n in range(len(place), 0, -1) if place[:n] in sources), path
    )
    more = f" ({len(problems) - 1} more problems in this configuration)" if problems[1:] else ""
    if first["type"] == "extra_forbidden":
        found = _unknown_key(place, source)
        return ConfigError(found.what + more, where=source, fix=found.fix)
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        section = f"{source}, {'.'.join(place)}" if place else source
        return ConfigError(message + more, where=section)
    if not isinstance(first["input"], str) and first["type"] in TEXT_FAULTS:
        return ConfigError(
            f"setting {'.'.join(part for part in place if part in known_parts())} is a text{more}",
            where=source,
            got=repr(first["input"]),
            expected="a text",
            fix="put the value in quotes, for YAML reads it as something else",
        )
    return ConfigError(
        f"setting {'.'.join(place)} has a value that does not fit{more}",
        where=source,
        got=repr(first["input"]),
        expected=first["msg"].removeprefix("Input should be ").removeprefix("a valid "),
    )
