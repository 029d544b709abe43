"""The demonstration behind `make demo`: cotune's whole job once, on a real Kubernetes with simulated cards."""
