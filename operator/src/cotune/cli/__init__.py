"""`cotune`, and as `kubectl-cotune` on the search path `kubectl cotune`."""
