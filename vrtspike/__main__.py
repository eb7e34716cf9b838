"""`python -m vrtspike` is the `vrtspike` command."""

from __future__ import annotations

from vrtspike.cli.app import main

if __name__ == "__main__":
    main()
