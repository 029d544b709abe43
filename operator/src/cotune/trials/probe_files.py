"""The files that the probe reads: which volumes its pod has, and where each is mounted."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotune.api.corpus import ClaimSource, CorpusRef, ImageSource
from cotune.api.experiment import Workload
from cotune.api.stage_probe import StageProbe
from cotune.api.workload import FileRef
from cotune.trials.render import Manifest


@dataclass(frozen=True)
class ProbeFiles:
    """What a workload refers to, each volume once."""

    config_maps: Sequence[str]
    claims: Sequence[str]
    images: Sequence[tuple[str, str]]
    """Reference and pull policy."""

    @classmethod
    def of(cls, workload: Workload | StageProbe) -> "ProbeFiles":
        """All that the streams of a workload read."""
        corpora = [it.corpus_ref for it in workload.streams if it.corpus_ref is not None]
        claims = {it.persistent_volume_claim.claim_name for it in corpora if it.persistent_volume_claim is not None}
        images = {_image(it.image) for it in corpora if it.image is not None}
        return cls(workload.config_maps, sorted(claims), sorted(images))

    def file(self, reference: FileRef | None) -> str | None:
        """Where a file of a ConfigMap is."""
        return None if reference is None else f"/files/{self.config_maps.index(reference.config_map)}/{reference.key}"

    def corpus(self, reference: CorpusRef | None) -> str | None:
        """The folder of a corpus; None: it is not mounted, but fetched."""
        if reference is None:
            return None
        if reference.config_map is not None:
            return f"/files/{self.config_maps.index(reference.config_map)}"
        if (claim := reference.persistent_volume_claim) is not None:
            return _within(f"/claims/{self.claims.index(claim.claim_name)}", claim)
        if (image := reference.image) is not None:
            return _within(f"/images/{self.images.index(_image(image))}", image)
        return None

    def volumes(self) -> list[Manifest]:
        """For the pod."""
        return [
            *({"name": f"files-{number}", "configMap": {"name": name}} for number, name in enumerate(self.config_maps)),
            *(
                {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}}
                for number, name in enumerate(self.claims)
            ),
            *(
                {"name": f"image-{number}", "image": {"reference": reference, "pullPolicy": policy}}
                for number, (reference, policy) in enumerate(self.images)
            ),
        ]

    def mounts(self) -> list[Manifest]:
        """For the container; nothing is mounted to be written."""
        kinds = (
            ("files", "files", self.config_maps),
            ("claim", "claims", self.claims),
            ("image", "images", self.images),
        )
        return [
            {"name": f"{kind}-{number}", "mountPath": f"/{folder}/{number}", "readOnly": True}
            for kind, folder, several in kinds
            for number in range(len(several))
        ]


def _image(source: ImageSource) -> tuple[str, str]:
    return source.reference, str(source.pull_policy)


def _within(folder: str, source: ClaimSource | ImageSource) -> str:
    return folder if source.path is None else f"{folder}/{source.path}"
