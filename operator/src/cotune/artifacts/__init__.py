"""What is kept of a trial for good: its record, where it lies, for how long, and whether it still says the same."""
