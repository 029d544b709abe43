"""What holds a resource back from its deletion until the operator has put right what it has begun."""

from cotune.cluster.kinds import Kind
from cotune.cluster.objects import Object, Objects


async def with_finalizer(objects: Objects, kind: Kind, body: Object, finalizer: str, wanted: bool) -> Object:
    """The resource with a finalizer, or without it; it is only written to when that changes something.

    Raises:
        ConflictError: the resource has changed since it was read.
    """
    metadata = body["metadata"]
    present = [str(it) for it in metadata.get("finalizers", ())]
    if (finalizer in present) == wanted:
        return body
    finalizers = [*present, finalizer] if wanted else [it for it in present if it != finalizer]
    patch: Object = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
    return await objects.merge(kind, metadata["namespace"], metadata["name"], patch)
