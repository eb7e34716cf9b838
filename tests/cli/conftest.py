"""What restoring changes in its process is set back after each test."""

from tests.restoration.conftest import as_it_was

__all__ = ["as_it_was"]
