"""What fits, before anything starts: the memory of every service on the card, by arithmetic."""
