"""How long simulated starts take."""

import os

SCALE_VARIABLE = "COTUNE_SIMULATION_STARTUP_SCALE"


def startup_scale() -> float:
    """The factor on all start-up times: 1 where the variable is not set, for starts as long as real ones.

    :raises ValueError: it is no number, or a negative one.
    """
    text = os.environ.get(SCALE_VARIABLE) or "1.0"
    scale = float(text)
    if scale < 0:
        raise ValueError(f"{SCALE_VARIABLE} must not be negative, found {text}")
    return scale
