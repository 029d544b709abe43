"""The `config.json` of an experiment's models, from the ConfigMaps that it names."""

from cotune.api.experiment import ExperimentSpec
from cotune.cluster.kinds import CONFIG_MAP
from cotune.cluster.objects import Objects
from cotune.planning.candidates import read_published
from cotune.planning.model_config import ModelConfig


async def model_configs(objects: Objects, namespace: str, spec: ExperimentSpec) -> dict[str, ModelConfig]:
    """Component to its model's configuration.

    Raises:
        PlanningError: a ConfigMap or its key is not there.
        ModelConfigError: the text is no configuration.
    """
    found: dict[str, ModelConfig] = {}
    for component in spec.stack.components:
        reference = component.memory.config_ref if component.memory is not None else None
        if reference is None:
            continue
        body = await objects.find(CONFIG_MAP, namespace, reference.config_map)
        found[component.name] = read_published(component.name, reference, (body or {}).get("data", {}))
    return found
