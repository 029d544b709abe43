"""From measurements to constraints, scores and a ranking."""
