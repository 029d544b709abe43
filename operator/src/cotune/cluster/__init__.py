"""The only place that talks to Kubernetes: observe into frozen snapshots, apply by calls that may be repeated."""
