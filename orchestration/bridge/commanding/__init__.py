"""The commands of the bridge, one module for each noun; `bridge/commands.py` puts them together."""
