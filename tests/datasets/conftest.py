"""A dataset and its shards, as the tests of samples have them."""

from tests.samples.conftest import prepare, source

__all__ = ["prepare", "source"]
