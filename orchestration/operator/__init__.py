"""The commands of `klorosctl`, one module for those that belong together."""
