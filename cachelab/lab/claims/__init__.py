"""Claims in circulation on trial."""
