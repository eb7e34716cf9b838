"""Dataset folders: layouts, clips, clocks, and the checks of `vrtspike validate`."""
