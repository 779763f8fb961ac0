"""Measuring in time: fair timing, slow networks, what a read costs."""
