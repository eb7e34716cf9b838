"""A process group of one, and a sharded model, as the tests of training have them."""

from tests.training.conftest import alone, make_sharded, plain, sharded

__all__ = ["alone", "make_sharded", "plain", "sharded"]
