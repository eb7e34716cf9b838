"""How methods are called and coloured wherever a reader sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

BASELINE, MAIN = "baseline", "fused"
GUESS, BASELINE_GUESS = "first_guess", "baseline_first_guess"
FIRST_GUESS = ": first guess"
"""Said after the name of another model, of what its transformer refines."""
PACKAGED = " (packaged)"
"""Said after the name of weights that come with the package."""
UNSHOWN = ("tfi",)
"""Methods whose pictures are left out: the interval image is the average's, only noisier."""
COLOURS = 20
"""Colours that the pages have for models given by name."""


@dataclass(frozen=True)
class Method:
    """A method's name in sentences, its name under a picture, what it does, its colour's style."""

    name: str
    short: str
    note: str
    style: str


_CONTROLS = {
    "blurred": Method("Blurred input", "Blurred", "what the frame camera gave", "blurred"),
    "tfp": Method("Spike average (TFP)", "TFP", "threshold × mean of spikes, gray", "tfp"),
    "tfi": Method("Spike interval (TFI)", "TFI", "threshold ÷ spike interval, gray", "tfi"),
    "sdm": Method("Spike/blur ratio (SDM)", "SDM", "blurred × spike ratio, untrained", "sdm"),
    "sharp": Method("Sharp frame", "Sharp", "the ground truth", "sharp"),
}
_KNOWN = _CONTROLS | {
    GUESS: Method(
        "First guess", "First guess", "what the transformer with spikes refines", "guess"
    ),
    BASELINE_GUESS: Method(
        "First guess without spikes",
        "Guess",
        "what the transformer without spikes refines",
        "baseline-guess",
    ),
    BASELINE: Method("Without spikes", "No spikes", "the baseline, trained alike", "baseline"),
    MAIN: Method("With spikes", "With spikes", "the fused model", "fused"),
}


def method(name: str) -> Method:
    """Return how a method is shown; one that is not known is called as the user called it."""
    if name in _KNOWN:
        return _KNOWN[name]
    note = (
        "what the transformer refines there"
        if name.endswith(FIRST_GUESS)
        else "a model given by name"
    )
    return Method(name, name, note, "other-0")


def methods(names: Iterable[str]) -> dict[str, Method]:
    """Return how methods are shown together, each in a colour of its own."""
    shown = {name: method(name) for name in names}
    others = [name for name in shown if not is_known(name)]
    return shown | {
        name: replace(shown[name], style=f"other-{number % COLOURS}")
        for number, name in enumerate(others)
    }


def guess_of(name: str) -> str:
    """Return what a model's first guess is called as a method."""
    return {MAIN: GUESS, BASELINE: BASELINE_GUESS}.get(name, name + FIRST_GUESS)


def guesses_among(methods: Iterable[str]) -> dict[str, str]:
    """Return the models whose first guess is a method, too, each with its first guess."""
    names = list(methods)
    return {name: guess_of(name) for name in names if guess_of(name) in names}


def is_known(name: str) -> bool:
    """Tell whether a name is one of the methods that every evaluation may have."""
    return name in _KNOWN


def is_model(name: str) -> bool:
    """Tell whether a method is a model or its first guess, and not a control."""
    return name not in _CONTROLS


def main_model(methods: Iterable[str]) -> str | None:
    """Return the model that the report is about: the fused one, or else the last one named."""
    models = [name for name in methods if is_model(name)]
    if MAIN in models:
        return MAIN
    return models[-1] if models else None
