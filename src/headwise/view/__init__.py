"""Attention to look at: a page for a browser, a figure for a notebook."""
