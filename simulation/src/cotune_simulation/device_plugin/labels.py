"""The labels that NVIDIA's GPU feature discovery puts on a node."""

from cotune_simulation.card.products import CardProduct
from cotune_simulation.figures import MIB

SIMULATED_LABEL = "simulation.cotune.dev/simulated"


def feature_labels(product: CardProduct, replicas: int, mps: bool = False) -> dict[str, str]:
    """Labels of a node with one card, shared by `replicas` containers by time-slicing or MPS, or exclusive with one."""
    shared = replicas > 1
    strategy = ("mps" if mps else "time-slicing") if shared else "none"
    driver = (*product.driver_version.split("."), "0")[:3]
    runtime = f"{product.cuda_version[0]}.{product.cuda_version[1]}"
    return {
        SIMULATED_LABEL: "true",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product.product + ("-SHARED" if shared else ""),
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.sharing-strategy": strategy,
        "nvidia.com/gpu.memory": str(product.memory_bytes // MIB),
        "nvidia.com/gpu.family": product.family,
        "nvidia.com/gpu.compute.major": str(product.compute_capability[0]),
        "nvidia.com/gpu.compute.minor": str(product.compute_capability[1]),
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/mig.capable": "false",
        "nvidia.com/mps.capable": "true" if mps else "false",
        "nvidia.com/cuda.driver-version.full": product.driver_version,
        "nvidia.com/cuda.driver-version.major": driver[0],
        "nvidia.com/cuda.driver-version.minor": driver[1],
        "nvidia.com/cuda.driver-version.revision": driver[2],
        "nvidia.com/cuda.driver.major": driver[0],
        "nvidia.com/cuda.driver.minor": driver[1],
        "nvidia.com/cuda.driver.rev": driver[2],
        "nvidia.com/cuda.runtime-version.full": runtime,
        "nvidia.com/cuda.runtime-version.major": str(product.cuda_version[0]),
        "nvidia.com/cuda.runtime-version.minor": str(product.cuda_version[1]),
        "nvidia.com/cuda.runtime.major": str(product.cuda_version[0]),
        "nvidia.com/cuda.runtime.minor": str(product.cuda_version[1]),
    }
