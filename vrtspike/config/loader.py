"""Load settings: YAML files and dotted overrides -> one frozen, validated `Config`.

The order is: defaults in `vrtspike.config`, the file named by `base:` (relative to the file that
names it), the file itself, and overrides `a.b=c`, whose value is read as YAML, or as it
is typed if the setting is a text or a path. Later settings
replace earlier ones; mappings are merged key by key. An unknown key, a value of the wrong type, or
settings that contradict each other raise ConfigError, which names the file or override and the
nearest known key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
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
"""The file or override that last set each key."""


def load_config(
    path: Path | str | None, overrides: Sequence[str] = (), *, base: Path | str | None = None
) -> Config:
    """Read a configuration file and its bases, apply overrides, and validate the result.

    `path` is a file, or a configuration that ships with the package by its name, such as `demo` or
    `tune/heads`; if it is None the overrides apply to the defaults. `base` replaces the base that
    the file names. Raise ConfigError for a file that cannot be read, and for invalid settings.
    """
    sources: Sources = {}
    base = None if base is None else find_config(Path(base))
    tree = {} if path is None else _read_with_bases(find_config(Path(path)), (), sources, base)
    for override in overrides:
        _apply_override(tree, override, sources)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, str(path or "defaults"), sources) from None


def find_config(path: Path) -> Path:
    """Return the file of a configuration: the path itself, or a shipped one by its name."""
    if path.suffix or path.is_absolute() or path.is_file():
        return path
    shipped = shipped_configs()
    if (shipped / f"{path}.yaml").is_file():
        return shipped / f"{path}.yaml"
    if path.exists():
        return path
    names = [file.relative_to(shipped).with_suffix("") for file in shipped.rglob("*.yaml")]
    near = difflib.get_close_matches(str(path), map(str, names), n=1, cutoff=0.5)
    raise ConfigError(
        "no configuration of this name ships with the package",
        where="--config",
        got=str(path),
        expected="a file, or one of "
        + ", ".join(sorted(str(n) for n in names if n.parent == Path())),
        fix=f"did you mean {near[0]}?" if near else None,
    )


def shipped_configs() -> Path:
    """Return the folder of the configurations that ship: in a wheel, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def load_saved(path: Path) -> Config:
    """Read the configuration that a run has written, which holds all settings and has no base."""
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
    """Return the configuration with new values for some settings, given by their dotted keys.

    Raise ConfigError for an unknown key, a value of the wrong type, or settings that contradict
    each other.
    """
    # Not mode="json", which would remove access keys from URIs.
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
    """Return all settings as YAML, from which `load_config` reads an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys() -> list[str]:
    """List the dotted keys of all settings and sections."""
    return [key for key, _ in _fields(Config)]


def keys_with(*roles: Role) -> list[str]:
    """List the dotted keys of the settings and sections that have one of these roles.

    A section with a role stands for all settings in it, which are not listed.
    """
    keys: list[str] = []
    for key, field in _fields(Config):
        if any(role in field.metadata for role in roles) and not within(key, keys):
            keys.append(key)
    return keys


def same_in_trials() -> dict[str, str]:
    """Return the dotted keys of settings that a sweep cannot change, each with the reason."""
    return {
        key: role.reason
        for key, field in _fields(Config)
        for role in field.metadata
        if isinstance(role, SameInTrials)
    }


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield all settings and sections by their dotted keys, a section before what is in it."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from _fields(inner, f"{prefix}{name}.")


def check_known(dotted: str, where: str) -> None:
    """Raise ConfigError, with the nearest known key, if a setting does not exist.

    `where` says in the error where the key came from.
    """
    path = tuple(dotted.split("."))
    if dotted not in known_keys() and not _inside_free_mapping(path):
        raise _unknown_key(path, where)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def known_parts() -> set[str]:
    """Return the names of all sections and settings."""
    return {part for key in known_keys() for part in key.split(".")}


def within(key: str, names: Iterable[str]) -> bool:
    """Return whether a dotted key is one of these settings or lies in one of these sections."""
    return any(key == name or key.startswith(name + ".") for name in names)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of an annotation `Section` or `Section | None`; else None."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _read_with_bases(
    path: Path, above: tuple[Path, ...], sources: Sources, instead: Path | str | None = None
) -> Tree:
    """Read a file and merge it over its base.

    `above` lists the files whose bases led to this file. `instead` replaces the base that the file
    names.
    """
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
    """Parse one YAML file, which must hold a mapping of section names."""
    where = f"{path}, the base of {above[-1]}" if above else f"{path}"
    if not path.exists():
        raise ConfigError("no such configuration file", where=where, fix="correct the path")
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


def _merge(
    into: Tree, tree: Mapping[Any, Any], at: tuple[str, ...], name: str, sources: Sources
) -> None:
    """Merge `tree` over `into`, and record in `sources` that its keys came from `name`."""
    for raw, value in tree.items():
        key, path = str(raw), (*at, str(raw))
        sources[path] = name
        if isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, path, name, sources)
        else:
            into[key] = value


def _apply_override(tree: Tree, override: str, sources: Sources) -> None:
    """Apply one override `a.b=c` to the tree."""
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
    """Return a tree with one value at a path of keys."""
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


def _inside_free_mapping(path: tuple[str, ...]) -> bool:
    """Return whether a key lies in a setting that is itself a mapping, as scenes.sequences is."""
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
    """Build the error for an unknown key, with the nearest known key as the fix."""
    dotted = ".".join(path)
    nearest = difflib.get_close_matches(dotted, known_keys(), n=1, cutoff=0.5)
    if not nearest:
        same_name = [key for key in known_keys() if key.split(".")[-1] == path[-1]]
        nearest = same_name or difflib.get_close_matches(
            path[0], list(Config.model_fields), n=1, cutoff=0.0
        )
    return ConfigError(f"unknown setting {dotted}", where=where, fix=f"did you mean {nearest[0]}?")


def _explain(error: ValidationError, path: str, sources: Sources) -> ConfigError:
    """Turn pydantic's first problem into a ConfigError that also counts the other problems."""
    problems = error.errors()
    first: ErrorDetails = problems[0]
    keys = tuple(str(part) for part in first["loc"])
    source = next((sources[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in sources), path)
    more = f" ({len(problems) - 1} more problems in this configuration)" if problems[1:] else ""
    if first["type"] == "extra_forbidden":
        unknown = _unknown_key(keys, source)
        return ConfigError(unknown.what + more, where=source, fix=unknown.fix)
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        section = f"{source}, {'.'.join(keys)}" if keys else source
        return ConfigError(message + more, where=section)
    if not isinstance(first["input"], str) and first["type"] in TEXT_FAULTS:
        return ConfigError(
            f"setting {'.'.join(part for part in keys if part in known_parts())} is a text{more}",
            where=source,
            got=repr(first["input"]),
            expected="a text",
            fix="put the value in quotes, for YAML reads it as something else",
        )
    return ConfigError(
        f"setting {'.'.join(keys)} has a value that does not fit{more}",
        where=source,
        got=repr(first["input"]),
        expected=first["msg"].removeprefix("Input should be ").removeprefix("a valid "),
    )
