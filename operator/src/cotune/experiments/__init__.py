"""What an experiment does next: which trials to start, who has won. All of it is pure."""
