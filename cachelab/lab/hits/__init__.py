"""Hit rates: workloads, policies, theory, and replay against a real server."""
