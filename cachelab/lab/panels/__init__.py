"""Panels: what a reader moves in a notebook or on the dashboard."""
