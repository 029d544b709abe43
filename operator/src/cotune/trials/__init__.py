"""One candidate as pods on one card: rendering, life cycle, and why a server did not start. All of it is pure."""
