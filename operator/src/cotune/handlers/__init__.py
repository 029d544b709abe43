"""The operator's process: kopf's watches feed work queues, and each key is reconciled by one level-triggered pass."""
