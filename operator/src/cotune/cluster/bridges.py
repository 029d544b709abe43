"""The bridge of a stage in its namespace: Deployments that are made once, read like any other, and deleted."""

from collections.abc import Collection, Mapping, Sequence

from cotune.api.grant import GrantTarget
from cotune.cluster.kinds import DEPLOYMENT, GRANT, PERSISTENT_VOLUME_CLAIM
from cotune.cluster.objects import AlreadyExistsError, ApiError, ForbiddenError, NotFoundError, Object, Objects
from cotune.cluster.revisions import ANNOTATION_PROFILE
from cotune.cluster.workloads import ANNOTATION_REVISION, Workload, Workloads
from cotune.rollout.bridge import LABEL_BRIDGE, bridge_name, bridge_of, claims_of


class Bridges:
    """One stage's bridge.

    Args:
        objects: the API server.
        namespace: the stage's.
        bridge: the value of its label.
        profile: namespace and name of the profile because of which it is made.
    """

    def __init__(self, objects: Objects, namespace: str, bridge: str, profile: str) -> None:
        self._objects = objects
        self._namespace = namespace
        self._bridge = bridge
        self._profile = profile

    async def observe(self, targets: Mapping[str, GrantTarget]) -> dict[str, Workload]:
        """What there is of it, by component; a Deployment of its name that is not its own is passed over."""
        copies = {name: _copy_of(it, self._bridge) for name, it in targets.items()}
        found = await Workloads(self._objects, self._namespace).observe(copies, {})
        return {name: it for name, it in found.items() if self._is_own(it.deployment)}

    async def create(
        self, original: Workload, values: Mapping[str, str | None], marker: str, dry_run: bool = False
    ) -> None:
        """Make the copy of a workload; one that is there already is left as it is.

        Raises:
            ApiError: the API server refuses it.
        """
        body = bridge_of(
            original.deployment,
            original.target.container,
            values,
            {ANNOTATION_REVISION: marker},
            self._bridge,
            await self._stacks(original),
            await self._neighbours(),
        )
        body["metadata"]["annotations"][ANNOTATION_PROFILE] = self._profile
        try:
            await self._objects.create(DEPLOYMENT, self._namespace, body, dry_run=dry_run)
        except AlreadyExistsError as error:
            found = await self._objects.find(DEPLOYMENT, self._namespace, body["metadata"]["name"])
            if found is not None and not self._is_own(found):
                raise ApiError(422, "NameTaken", f"{error.message}, and it is somebody else's") from None

    async def remove(self, workload: Workload) -> None:
        """Delete one that was observed; its pods go with it."""
        await self._delete(workload.deployment)

    async def remove_all(self) -> None:
        """Delete whatever there is of it, by its label."""
        for it in await self._objects.list(DEPLOYMENT, self._namespace, {LABEL_BRIDGE: self._bridge}):
            await self._delete(it)

    async def _delete(self, deployment: Object) -> None:
        metadata = deployment["metadata"]
        await self._objects.delete(DEPLOYMENT, self._namespace, metadata["name"], uid=metadata["uid"])

    async def access_modes(self, workloads: Collection[Workload]) -> dict[str, Collection[str] | None]:
        """The access modes of the claims that workloads mount, by name; None: they cannot be read."""
        return {
            name: await self._modes(name) for name in sorted({it for w in workloads for it in claims_of(w.deployment)})
        }

    async def _modes(self, claim: str) -> Sequence[str] | None:
        try:
            found = await self._objects.get(PERSISTENT_VOLUME_CLAIM, self._namespace, claim)
        except (ForbiddenError, NotFoundError):
            return None
        modes: list[str] = found["spec"].get("accessModes") or []
        return modes

    async def _stacks(self, original: Workload) -> list[Mapping[str, str]]:
        """How the Deployments that grants of this namespace name select their pods: those of other stacks, too."""
        grants = await self._objects.list(GRANT, self._namespace)
        targets = [GrantTarget.model_validate(it) for grant in grants for it in grant["spec"]["targets"]]
        names = {it.workload_ref.name for it in targets if it.workload_ref is not None}
        deployments = [await self._objects.find(DEPLOYMENT, self._namespace, it) for it in sorted(names)]
        for selector in [it.workload_selector for it in targets if it.workload_selector is not None]:
            deployments += await self._objects.list(DEPLOYMENT, self._namespace, selector.match_labels)
        found: list[Mapping[str, str]] = [original.deployment["spec"]["selector"]["matchLabels"]]
        for it in deployments:
            if it is None or LABEL_BRIDGE in it["metadata"].get("labels", {}):
                continue
            labels: Mapping[str, str] = it["spec"]["selector"].get("matchLabels") or {}
            if labels and labels not in found:
                found.append(labels)
        return found

    async def _neighbours(self) -> set[str]:
        """The other namespaces that are known to have stacks, or trials, on cards.

        Two pods may share a card: a share that is free on somebody else's is no spare card.
        """
        grants = await self._objects.list(GRANT)
        owners = {str(it["metadata"]["namespace"]) for it in grants}
        sources = {str(origin["namespace"]) for it in grants for origin in it["spec"]["from"]}
        return (owners | sources) - {self._namespace}

    def _is_own(self, deployment: Object) -> bool:
        labels: Mapping[str, str] = deployment["metadata"].get("labels") or {}
        return labels.get(LABEL_BRIDGE) == self._bridge


def _copy_of(target: GrantTarget, bridge: str) -> GrantTarget:
    reference = target.workload.model_copy(update={"name": bridge_name(target.workload.name, bridge)})
    return target.model_copy(update={"workload_ref": reference})
