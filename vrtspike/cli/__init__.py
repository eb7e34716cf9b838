"""The `vrtspike` command line; each command has its own file."""
