"""The simulated card: one daemon per node keeps the memory ledger and shares the processing time.

Protocol, spoken over the Unix socket `$COTUNE_SIMULATION_SOCKET` (default `/run/cotune-simulation/card.sock`): one
JSON object per line each way; a reply carries the `id` of its request, replies may overtake each other.

    {"id": 1, "op": "describe"}                              who the card is and the figures its users need
    {"id": 2, "op": "read"}                                  all that NVML shows, as one flat object
    {"id": 3, "op": "allocate", "bytes": 1048576}            -> {"allocation": 7}, or an error (below)
    {"id": 4, "op": "free", "allocation": 7}
    {"id": 5, "op": "run", "kernel_ms": 2.0, "launches": 20, "gap_ms": 0.8}   answered when the last kernel has ended
    {"id": 6, "op": "memory"}                                -> {"free": bytes, "held": bytes by this connection}
    {"id": 7, "op": "restore", "bytes": 1048576}             what a process says again after the daemon was restarted
    {"id": 8, "op": "throttle", "reasons": 32}               NVML's clock event reasons, shown until told otherwise
    {"id": 9, "op": "fail", "xid": 48, "uncorrected": 1}     a critical error that the driver tells, and lost memory

An error is `{"id": 3, "error": "out_of_memory", "free": bytes, "total": bytes}` or `{"error": "bad_request", ...}`.

A connection stands for a CUDA context. The kernel says whose it is (SO_PEERCRED), in the daemon's process id
namespace. Its memory is given back when it frees it or when the connection ends, which is when the process ends.
Nothing keeps one process from taking what another needs.
"""

import os
from pathlib import Path

SOCKET_VARIABLE = "COTUNE_SIMULATION_SOCKET"
DEFAULT_SOCKET = Path("/run/cotune-simulation/card.sock")


def socket_path() -> Path:
    """Where this process finds the card."""
    return Path(os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
