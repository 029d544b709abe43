"""Starts of a real vLLM on a machine with an NVIDIA card, recorded for the planner to be judged by."""
