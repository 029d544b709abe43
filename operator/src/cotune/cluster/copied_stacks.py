"""Copies of what runs in other namespaces: read where a grant allows it, kept as ControllerRevisions."""

from collections.abc import Sequence

from cotune.api.grant import GrantTarget
from cotune.cluster.grants import GrantInvalidError, grants_of
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, EXPERIMENT
from cotune.cluster.objects import AlreadyExistsError, Object, Objects, controller_reference
from cotune.cluster.stacks import NameTakenError
from cotune.trials.copied_stack import CopiedService, CopiedStack, CopyRefusal, granted, sanitized


class CopiedStacks:
    """Copies of the stacks of other namespaces."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def read(self, namespace: str, source: str, components: Sequence[str]) -> CopiedStack | CopyRefusal:
        """What runs in a namespace now, as far as a grant there lets experiments of namespace `source` copy it.

        Without such a grant nothing but grants is read there.

        Args:
            namespace: the one to be copied.
            source: the experiment's.
            components: the experiment's own, all of which must be there.

        Raises:
            ForbiddenError: the operator has no right to read Deployments there.
        """
        try:
            targets = granted(await grants_of(self._objects, namespace), source, namespace, components)
        except GrantInvalidError as error:
            return CopyRefusal("GrantInvalid", str(error))
        if isinstance(targets, CopyRefusal):
            return targets
        services: list[CopiedService] = []
        for target in targets:
            name = target.workload.name
            deployment = await self._objects.find(DEPLOYMENT, namespace, name)
            is_own = target.component in components
            if deployment is None and is_own:
                return CopyRefusal("WorkloadNotFound", f"namespace {namespace} has no Deployment {name}")
            if deployment is None or not (is_own or deployment["spec"].get("replicas", 1)):
                continue  # What does not run there is no neighbour.
            try:
                services.append(_service(target, deployment))
            except LookupError as error:
                return CopyRefusal("NotBindable", f"Deployment {namespace}/{name} has {error.args[0]}")
        return CopiedStack(namespace, tuple(services))

    async def ensure(self, stack: CopiedStack, experiment: Object) -> str:
        """Keep a copy for as long as its experiment is there; the same copy is kept once. Its name.

        Raises:
            NameTakenError: an object of its name is not this experiment's.
        """
        metadata = experiment["metadata"]
        name, namespace = stack.name(metadata["name"]), metadata["namespace"]
        body: Object = {
            "apiVersion": CONTROLLER_REVISION.api_version,
            "kind": CONTROLLER_REVISION.name,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "ownerReferences": [controller_reference(EXPERIMENT, experiment)],
            },
            "data": stack.data(),
            "revision": 0,
        }
        try:
            await self._objects.create(CONTROLLER_REVISION, namespace, body)
        except AlreadyExistsError:
            found = await self._objects.get(CONTROLLER_REVISION, namespace, name)
            owners = {it["uid"] for it in found["metadata"].get("ownerReferences", ())}
            if metadata["uid"] not in owners or found["data"] != body["data"]:
                raise NameTakenError(f"ControllerRevision {name} exists and is not this experiment's") from None
        return name

    async def find(self, namespace: str, name: str) -> CopiedStack | None:
        """A copy that was kept; None: somebody has deleted it."""
        found = await self._objects.find(CONTROLLER_REVISION, namespace, name)
        return CopiedStack.read(found["data"]) if found is not None else None


def _service(target: GrantTarget, deployment: Object) -> CopiedService:
    copied = sanitized(deployment["spec"]["template"], target.container, {*target.copy_env, *target.env})
    return CopiedService(target.component, target.workload.name, copied.template, copied.lost, target.memory_mib)
