"""What an experiment found, for people: computed from its resources and raw results, as one HTML page or as Markdown."""
