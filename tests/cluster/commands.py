"""Shell commands out of documents and cluster files, checked without running them.

`check` takes the text of a script and raises AssertionError for a command, an option, a file or a
setting that does not exist. Ours and Ray's commands are asked what they take; of others only the
files of this repository that they name are looked at. FILL_IN and names in capitals are the
reader's to replace.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from vrtspike.config.loader import known_keys, load_config

REPOSITORY = Path(__file__).resolve().parents[2]
OTHERS = {
    *(
        "[[",
        "aws",
        "base64",
        "bash",
        "cd",
        "cp",
        "curl",
        "docker",
        "echo",
        "exit",
        "export",
        "gcloud",
    ),
    *("git", "hostname", "kubectl", "pip", "pytest", "sbatch", "scancel", "setsid", "source"),
    *("tensorboard", "ulimit"),
}
"""Commands of the system that may be used; any other word at a command's place is a mistake."""
ENDS = {"|", "||", "&&", ";", "&", "(", ")", "{", "}"}
PREFIXES = ("/opt/vrtspike/", "~/checkout/", "$checkout/")
"""Where the repository lies in the image, and on the nodes of `ray up`."""


def check(script: str) -> int:
    """Check all commands of a script; return how many of ours and Ray's were among them."""
    return sum(_check_words(words) for words in commands(script))


def check_name(text: str) -> None:
    """Check a command that is only named, as in "`ray job submit` is refused"."""
    program, *words = text.split()
    found: Any = _program(program)
    for word in words:
        found = getattr(found, "commands", {}).get(word)
        assert found is not None, f"{text}: there is no {word}"


def commands(script: str) -> Iterator[list[str]]:
    """Split a script into the words of each command, without assignments and redirections.

    Of a loop (`for name in values; do ...; done`) the first value is taken.
    """
    loop = re.compile(r"^for (\w+) in (\S+).*?; do\n(.*?)^done$", re.DOTALL | re.MULTILINE)
    script = loop.sub(lambda found: found[3].replace(f"${found[1]}", found[2]), script)
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ENDS:
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def local(path: str) -> Path | None:
    """Return the file of this repository that a path means, or None where it means another."""
    for prefix in PREFIXES:
        if path.startswith(prefix):
            return REPOSITORY / path.removeprefix(prefix)
    folder, slash, _ = path.partition("/")
    ours = slash and folder in {
        *("benchmarks", "cluster", "configs", "docs", "ray_jobs", "tests", "vrtspike")
    }
    return REPOSITORY / path if ours else None


def _check_words(words: Sequence[str]) -> bool:
    """Check one command; tell whether it is ours or Ray's."""
    for word in words:
        path = local(word)
        assert path is None or path.exists(), f"no such file: {word} (in {' '.join(words)})"
    name, arguments = words[0], words[1:]
    match name:
        case "vrtspike":
            _check_ours(arguments)
        case "ray":
            _check_ray(arguments)
        case "make":
            targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert set(arguments) <= set(targets), f"make {arguments}: targets are {targets}"
        case "python" | "python3" | "python3.11":
            _check_python(arguments)
        case "srun":
            started = next(n for n, word in enumerate(arguments) if not word.startswith("-"))
            return _check_words(arguments[started:])
        case _:
            assert name in OTHERS, f"unknown command: {' '.join(words)}"
            return False
    return True


def _check_python(arguments: Sequence[str]) -> None:
    """Check a job, which is a command of ours, or another script with options of its own."""
    if arguments[0] == "-m":
        assert find_spec(arguments[1]), f"no such module: {arguments[1]}"
        return
    script = local(arguments[0])
    assert script is not None and script.is_file(), f"no such script: {arguments[0]}"
    text = script.read_text()
    if script.parent.name == "ray_jobs":
        found = re.search(r'app\(\["(\w+)"', text)
        assert found, f"{script.name} runs no command"
        _check_ours([found[1], *arguments[1:]])
    else:
        for word in arguments[1:]:
            assert not word.startswith("--") or f'"{word}"' in text, f"{script.name} has no {word}"


def _check_ours(arguments: Sequence[str]) -> None:
    options = _parse(_program("vrtspike"), "vrtspike", arguments)
    config, overrides = options.get("config"), options.get("overrides") or ()
    keys = [override.partition("=")[0] for override in overrides]
    unknown = set(keys) - set(known_keys())
    assert not unknown, f"unknown settings {unknown}: vrtspike {' '.join(arguments)}"
    if config is None or str(config) == "X.yaml":
        return
    path = local(str(config))
    assert path is not None, f"{config} is no file of this repository"
    if path.parent.name != "tune":
        load_config(path, overrides)


def _check_ray(arguments: Sequence[str]) -> None:
    options = _parse(_program("ray"), "ray", arguments)
    if entrypoint := options.get("entrypoint"):
        _check_words(entrypoint)
    for key in ("cluster_config_file", "working_dir"):
        if value := options.get(key):
            assert (REPOSITORY / value).exists(), f"no such file: {value}"
    if command := options.get("cmd"):
        check(command)


def _program(name: str) -> Any:
    """Return a program as a click command."""
    if name == "ray":
        from ray.scripts.scripts import cli

        return cli
    import typer

    from vrtspike.cli.app import app

    assert name == "vrtspike", f"{name} is neither vrtspike nor ray"
    return typer.main.get_command(app)


def _parse(command: Any, name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the options that a click command, or one of a group, takes the arguments for."""
    words = list(arguments)
    while (below := getattr(command, "commands", None)) and words and words[0] in below:
        command, name = below[words[0]], f"{name} {words.pop(0)}"
    assert not below or not words or words[0].startswith("-"), f"{name} has no command {words[0]}"
    context = command.context_class(command, info_name=name)
    try:
        options, rest, _ = command.make_parser(context).parse_args(words)
    except Exception as error:
        raise AssertionError(f"{name} {' '.join(words)}: {error}") from error
    assert not rest, f"{name} takes no {rest}"
    # What was not given is marked by objects of click's own.
    given = {key: v for key, v in options.items() if isinstance(v, str | bool | tuple | list) and v}
    for parameter in command.params:
        value, choices = given.get(parameter.name), _choices(parameter)
        assert value or not parameter.required or below, f"{name} wants {parameter.opts}"
        assert not value or not choices or value in choices, f"{name}: {value} is none of {choices}"
    return given


def _choices(parameter: Any) -> tuple[str, ...]:
    """Return the values that a parameter may have, in click's notation or in typer's."""
    described = getattr(parameter, "type_descriptor", None)
    annotation = getattr(described, "annotation", None)
    of_click = getattr(getattr(parameter, "type", None), "choices", ())
    return get_args(annotation) if get_origin(annotation) is Literal else tuple(of_click)


@cache
def ray_source() -> str:
    """Return those parts of Ray's installed source that read its environment."""
    import ray

    root = Path(ray.__file__).parent
    parts = ("_private", "_common", "autoscaler", "dashboard", "scripts", "train")
    files = (file for part in parts for file in (root / part).rglob("*.py"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
