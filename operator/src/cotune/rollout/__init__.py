"""A profile's way through its stages, and back. All of it is pure: observations in, the next step out."""
