"""cotune tunes the services that share a GPU."""
