"""Faults and crowds: outages and stampedes, as data and as charts."""
