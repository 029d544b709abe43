"""cotune tunes the services that share a GPU."""

__version__ = "0.1.0"
