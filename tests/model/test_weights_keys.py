"""Weights under the keys and prefixes of other training programs are found, and it is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vrtspike.errors import CheckpointError
from vrtspike.model.weights import load_weights

SAVED = {name: value + 1 for name, value in nn.Linear(3, 2).state_dict().items()}


def loaded(content: Any, folder: Path) -> bool:
    """Tell whether exactly the saved weights are taken of a file."""
    torch.save(content, folder / "a.pth")
    model = nn.Linear(3, 2)
    load_weights(model, folder / "a.pth")
    return all(torch.equal(value, SAVED[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "key", ["params", "params_ema", "state_dict", "model", "netG", "model_state_dict"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "generator.", "model.", "module._orig_mod."])
def test_keys_and_prefixes_are_found(key: str, prefix: str, tmp_path: Path) -> None:
    named = {f"{prefix}{name}": value for name, value in SAVED.items()}
    assert loaded(named, tmp_path)
    assert loaded({"epoch": 3, key: named}, tmp_path)


def test_the_average_goes_first_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {name: value * 0 for name, value in SAVED.items()}
    with caplog.at_level(logging.WARNING):
        assert loaded({"params": other, "params_ema": SAVED}, tmp_path)
    assert "under the key params_ema and not those under params" in caplog.text


def test_a_file_without_weights_is_refused_with_the_keys(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no state dict.*params_ema.*Fix"):
        loaded({"epoch": 3, "other": SAVED}, tmp_path)
