"""What a program takes from `vrtspike` itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vrtspike


@pytest.mark.parametrize("name", vrtspike.__all__)
def test_what_is_promised_is_there(name: str) -> None:
    assert callable(getattr(vrtspike, name))


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'restorer'"):
        vrtspike.restorer  # noqa: B018


def test_the_package_alone_loads_nothing_heavy() -> None:
    code = "import sys, vrtspike; print({'torch', 'numpy', 'ray', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
