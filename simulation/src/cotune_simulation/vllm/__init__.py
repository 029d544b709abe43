"""A simulated vLLM server: starts, fails, logs and serves as vLLM does, on a simulated card."""
