"""Few reads find their key, and nearly all that was stored has expired: 20 means milliseconds."""

cause = "entries that expire too soon"
cure = "give the expiry in seconds"
