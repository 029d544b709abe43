"""The kinds that cotune reads or writes, and where the API server has them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of resource."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL's path of an object, or of the collection when `name` is left out.

        Without a namespace, the collection of a namespaced kind is that of all namespaces.
        """
        parts = ["api" if "/" not in self.api_version else "apis", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [self.plural, *(it for it in (name, subresource) if it is not None)]
        return "/" + "/".join(parts)


EXPERIMENT = Kind("cotune.dev/v1alpha1", "GpuAllocationExperiment", "gpuallocationexperiments")
TRIAL = Kind("cotune.dev/v1alpha1", "GpuTrial", "gputrials")
PROFILE = Kind("cotune.dev/v1alpha1", "GpuProfile", "gpuprofiles")
GRANT = Kind("cotune.dev/v1alpha1", "GpuTuningGrant", "gputuninggrants")

POD = Kind("v1", "Pod", "pods")
PERSISTENT_VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
EVENT = Kind("v1", "Event", "events")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
HORIZONTAL_POD_AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
CONTROLLER_REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
