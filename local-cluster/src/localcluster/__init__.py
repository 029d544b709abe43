"""A real Kubernetes cluster on one machine: one supervisor, declarative processes, no image registry."""
