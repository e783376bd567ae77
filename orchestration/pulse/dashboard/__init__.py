"""The page: views of `loop_health` as HTML, the same templates for a file on disk and for the server."""
