"""Pulse served: page, metrics and API over one process that only reads. docs/reference/http.md says what it answers."""
