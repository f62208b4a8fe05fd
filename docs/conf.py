"""Sphinx builds the documentation: `make site` into build/docs, strictly, and `make check` with it."""

project = "fullhouse"
copyright = "fullhouse's authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "fullhouse"
myst_heading_anchors = 3
nitpicky = True
