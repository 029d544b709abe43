"""Resources that are newer than the operator, on a real API server."""

import copy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cotune.cluster.kinds import GRANT, Kind
from cotune.cluster.objects import Object

from support.played_cluster import PlayedObjects, eventually

DEFINITION = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)


@asynccontextmanager
async def newer_grants(objects: PlayedObjects, namespace: str) -> AsyncGenerator[None]:
    """The API server takes a field that this operator does not know, and the grant there has it."""
    name = f"{GRANT.plural}.{GRANT.api_version.partition('/')[0]}"
    [grant] = await objects.list(GRANT, namespace)

    async def has_it() -> bool:
        patch: Object = {"spec": {"courtesy": "Please"}}
        return "courtesy" in (await objects.merge(GRANT, namespace, grant["metadata"]["name"], patch))["spec"]

    async def has_it_not() -> bool:
        return not await has_it()

    older = (await objects.get(DEFINITION, None, name))["spec"]["versions"]
    newer = copy.deepcopy(older)
    newer[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["courtesy"] = {"type": "string"}
    await objects.merge(DEFINITION, "", name, {"spec": {"versions": newer}})
    try:
        await eventually(has_it, "a grant with another field")
        yield
    finally:
        await objects.merge(DEFINITION, "", name, {"spec": {"versions": older}})
        await eventually(has_it_not, "grants as they were")
