"""The commands of `vrtspike`, by what they work on."""
