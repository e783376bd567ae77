"""The bridge as an MCP server: the same commands as tools, over HTTP (`face.py`) and over standard input (`stdio.py`)."""
