"""The node agent: one for each node with cards. It says whose the processes on a card are, which a probe cannot see.

It runs in the node's process id namespace, without a right of its own: `/proc/PID/cgroup` and the counters of control
groups are readable by everybody. NVML is read ten times a second while somebody asks, and not at all otherwise.
"""
