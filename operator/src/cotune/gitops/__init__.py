"""Workloads that Argo CD or Flux keeps as Git has them: how they are recognised, and what belongs into Git."""
