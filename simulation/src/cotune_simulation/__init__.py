"""A simulated card and simulated servers, so that cotune can be exercised where there is no GPU.

Everything except the silicon is real: processes, sockets, the kubelet's device plugin protocol, NVML's functions and
the servers' HTTP interfaces. Whatever this package starts says in its first line that it is a simulation.
"""

NOTICE = "SIMULATION: this is cotune's simulated {what}; no GPU is used and all its figures come from data files."


def announce(what: str) -> None:
    """Print the first line of every log of the simulation."""
    print(NOTICE.format(what=what), flush=True)
