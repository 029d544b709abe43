"""What a node needs so that Kubernetes sees the simulated card: device plugin, labels, and files for containers."""
