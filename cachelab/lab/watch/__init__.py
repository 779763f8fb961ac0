"""Watching servers: what they say of themselves, alarms, set-ups to diagnose."""
