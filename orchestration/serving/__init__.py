"""What every server of ours shares: the process, what is in each request, and how metrics are written."""
