"""Nothing in the package can run what data say: no pickle, no eval, no shell, and one opener each.

What opens images, YAML, HDF5 and videos is in one file a kind, where its limits are; everything
else goes there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted(
    file for folder in ("vrtspike", "ray_jobs") for file in (REPOSITORY / folder).rglob("*.py")
)
PICKLES = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "code"}
HARMLESS = {"pickle.UnpicklingError"}
"""What may be imported from those: an exception."""
RUN = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNSAFE = {
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "full_load", "UnsafeLoader")),
    *("torch.jit.load", "torch.hub.load", "np.fromregex", "h5py.File.visitlinks"),
}
ONLY_IN = {
    "Image.open": {"vrtspike/video/image_file.py"},
    "yaml.safe_load": {"vrtspike/storage/yaml_text.py"},
    "yaml.SafeLoader": {"vrtspike/storage/yaml_text.py"},
    "h5py.File": {"vrtspike/spikes/array_file.py", "vrtspike/spikes/write.py"},
    "av.open": {f"vrtspike/video/{name}.py" for name in ("inspect", "write", "audio")},
    "tempfile.mktemp": set(),
}
"""Openers, and the only files that may call them."""


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of a name or an attribute."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def constant(call: ast.Call, keyword: str) -> object:
    """Return the value of a call's keyword: a constant, None where it is not given, else ..."""
    found = [k.value for k in call.keywords if k.arg == keyword]
    if not found:
        return None
    return found[0].value if isinstance(found[0], ast.Constant) else ...


def faults(text: str, file: str) -> Iterator[str]:
    """Yield what a source file has that could run data."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        yield from (
            f"imports {name}"
            for name in names
            if PICKLES & {*name.split(".")} and name not in HARMLESS
        )
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in RUN | SHELLS | UNSAFE:
            yield f"calls {name}"
        if name.endswith("torch.load") and constant(node, "weights_only") is not True:
            yield "calls torch.load without weights_only=True"
        if constant(node, "allow_pickle") not in (None, False):
            yield "sets allow_pickle"
        if constant(node, "shell") not in (None, False):
            yield "sets shell"
        if file not in ONLY_IN.get(name, {file}):
            yield f"calls {name}, which is for {ONLY_IN[name]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_runs_no_data(path: Path) -> None:
    file = path.relative_to(REPOSITORY).as_posix()
    assert not list(faults(path.read_text(encoding="utf-8"), file))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import ray.cloudpickle as c",
        "eval(x)",
        "exec(x)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(t, Loader=yaml.SafeLoader)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "Image.open(f)",
        "yaml.safe_load(t)",
        "h5py.File(f)",
        "av.open(f)",
    ],
)
def test_the_rule_finds_it(text: str) -> None:
    assert list(faults(text, "vrtspike/x.py"))


def test_the_rule_lets_the_rest_be() -> None:
    text = "model.eval(); torch.load(f, weights_only=True); np.load(f)\n"
    assert not list(faults(text + "from pickle import UnpicklingError\n", "vrtspike/x.py"))
