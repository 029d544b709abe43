"""What components must hold on the card, and what they were seen to hold."""

from collections.abc import Iterator

from cotune.api.experiment import ExperimentSpec
from cotune.api.trial import Device, ObservedDevice, Prediction
from cotune.trials.placement import card_shares
from cotune.trials.tenancy import Tenancy

_SOMETHING_MIB = 1.0
"""What a component holds at least that is not planned, and asks for a card."""


def wanted_holdings(spec: ExperimentSpec, prediction: Prediction | None) -> dict[str, float]:
    """The least that each component which asks for a card holds on it, in MiB."""
    planned = {it.component: float(it.least_mib) for it in prediction.holdings} if prediction else {}
    asking = [it.name for it in spec.stack.components if spec.gpu is not None and card_shares(it)]
    return {it: planned.get(it, _SOMETHING_MIB) for it in asking}


def observed_devices(
    spec: ExperimentSpec, prediction: Prediction | None, tenancy: Tenancy | None
) -> tuple[ObservedDevice, ...]:
    """Where each component computes; nothing without somebody who knows whose the processes are."""
    return tuple(_observed(spec, prediction, tenancy)) if tenancy is not None else ()


def _observed(spec: ExperimentSpec, prediction: Prediction | None, tenancy: Tenancy) -> Iterator[ObservedDevice]:
    wanted = wanted_holdings(spec, prediction)
    for name in (it.name for it in spec.stack.components if it.name in tenancy.shares):
        share = tenancy.shares[name]
        is_there = share.least_mib >= wanted.get(name, _SOMETHING_MIB)
        yield ObservedDevice(
            component=name,
            device=Device.CUDA if is_there else Device.CPU,
            least_mib=round(share.least_mib),
            most_mib=round(share.most_mib),
        )
