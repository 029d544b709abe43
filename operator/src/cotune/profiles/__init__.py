"""From a winner to a profile."""
