"""What the probe's pod runs: load as an open loop, and latencies that cannot hide a queue."""
