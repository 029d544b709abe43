"""Speech with transcripts: where it lies, and what is mixed into it before it is sent."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import SET_LIST, ApiModel, Rule, with_rules

FolderPath = Annotated[
    str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
]
"""A folder below another; no part of it begins with a dot, so that it leads nowhere else."""

ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]


class ClaimSource(ApiModel):
    """A volume of the namespace of the experiment, or of the profile; the probe mounts it to read only."""

    claim_name: ObjectName
    path: FolderPath | None = None
    """The folder with `transcripts.json`; left out: the volume's root."""


class PullPolicy(StrEnum):
    """When an image is asked for of its registry, as for a container's."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class ImageSource(ApiModel):
    """An OCI image or artifact that the kubelet mounts as a volume: Kubernetes 1.35 and newer, containerd 2.1."""

    reference: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")]
    """As of a container's image; by digest (`@sha256:...`), if the same speech is to be heard for ever."""
    path: FolderPath | None = None
    """The folder with `transcripts.json`; left out: the image's root."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT


class UrlSource(ApiModel):
    """A tar (also gzip, bzip2 or xz) or zip archive that the probe fetches itself, without credentials."""

    url: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^https?://[^/@?#\s]+([/?][^#\s]*)?$")]
    """https or http; it must not carry a user or a password, for whoever may read the experiment reads it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """Of the archive; what has another digest is not used."""


class NoiseType(StrEnum):
    """What is mixed into the clips."""

    WHITE = "White"
    """The same power at all frequencies."""
    PINK = "Pink"
    """The same power in every octave, as much of the world has."""
    BABBLE = "Babble"
    """Other clips of the corpus, several at once."""


CLEAN = "clean"
"""The condition of a clip without noise."""

Decibels = Annotated[int, Field(ge=-20, le=40)]


class Noise(ApiModel):
    """Every clip is sent at each ratio of its power to the noise's, so that models which hear all of it differ."""

    snr_db: Annotated[tuple[Decibels, ...], Field(min_length=1, max_length=8, json_schema_extra=dict(SET_LIST))]
    """Power of the clip over power of the noise in dB, both over the whole clip; between -20 and 40."""
    type: NoiseType = NoiseType.WHITE
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """The same seed gives the same noise, for every candidate and repeat."""
    clean: bool = True
    """Whether every clip is also sent as it is."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """What each clip is sent under, as the last part of its metric's name: `clean`, `snr10`, `snrMinus5`."""
        return (*((CLEAN,) if self.clean else ()), *(condition(it) for it in self.snr_db))


def condition(snr_db: int) -> str:
    """The name of a ratio in a metric; `<c>.wer.snr10` is the word error rate at 10 dB, `snrMinus5` stands for -5."""
    return f"snr{snr_db}" if snr_db >= 0 else f"snrMinus{-snr_db}"


class CorpusRef(ApiModel):
    """Speech with transcripts: `*.wav` files and one `transcripts.json` that maps file name to reference text."""

    model_config = with_rules(
        Rule(
            "[has(self.configMap), has(self.persistentVolumeClaim), has(self.image), has(self.url)]"
            ".filter(it, it).size() == 1",
            "give exactly one of configMap, persistentVolumeClaim, image and url",
        ),
    )

    config_map: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """In the namespace of the experiment, or of the profile; it holds 1 MiB."""
    persistent_volume_claim: ClaimSource | None = None
    image: ImageSource | None = None
    url: UrlSource | None = None
    noise: Noise | None = None
    """Left out: the clips are sent as they are."""
