"""`python -m vrtspike` is the `vrtspike` command."""

from __future__ import annotations

from vrtspike.cli import main

if __name__ == "__main__":
    main()
