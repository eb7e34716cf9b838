"""The `vrtspike` command: one file a command."""
