"""What an experiment found, for people: from its resources and raw results, as one HTML page or as Markdown."""
