"""A site of these pages, by Sphinx with MyST: python -m sphinx -W --keep-going docs build/docs."""

from __future__ import annotations

from orchestration import __version__

project = "KLoROS orchestration"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["examples/agents/*/AGENTS.md"]  # instructions to agents, not to readers
myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # of languages that are named for other readers: crontab, logrotate
html_theme = "alabaster"
html_theme_options = {
    "description": "Unattended agent work on Linux hosts, one short tick at a time.",
    "fixed_sidebar": True,
    "page_width": "1240px",
    "sidebar_width": "270px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "localtoc.html"]}
