"""Taking over what the older orchestrator left in `~/.kloros` and its artifacts: read, planned, then applied."""
