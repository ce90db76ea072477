"""Which jobs come with dhctl. Standard library only: the client reads this without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class BuiltinJob:
    """What a client must know of a job before it starts it."""

    name: str
    """What a spec file says in job.name."""
    summary: str
    """One line for people."""
    module: str
    """Started on the head node as `python -m MODULE`."""
    needs: tuple[str, ...]
    """Import names that must be found on every node."""
    extra: str
    """The extra of dhctl that installs them: pip install "dhctl[EXTRA]"."""
    profiles: tuple[str, ...]
    """Values of job.params.profile, smallest first; the first is the default."""
    phantoms: bool
    """Whether `data: phantoms` works: the job generates sample data itself."""


JOBS: Mapping[str, BuiltinJob] = MappingProxyType(
    {
        "prostate": BuiltinJob(
            name="prostate",
            summary="ISUP grade of prostate biopsies from whole slides, in the layout of the PANDA challenge",
            module="dhctl.ray_jobs.prostate",
            needs=(
                "torch",
                "monai",
                "openslide",
                "tifffile",
                "skimage",
                "sklearn",
                "PIL",
                "pyarrow",
                "tenacity",
                "filelock",
            ),
            extra="prostate",
            profiles=("tiny", "full"),
            phantoms=True,
        ),
        "nodules": BuiltinJob(
            name="nodules",
            summary="Lung nodules in chest CT, from DICOM series with DICOM-SEG, NIfTI with masks, or LUNA16's layout",
            module="dhctl.ray_jobs.nodules",
            needs=(
                "torch",
                "monai",
                "pydicom",
                "highdicom",
                "nibabel",
                "sklearn",
                "scipy",
                "pyarrow",
                "tenacity",
                "filelock",
            ),
            extra="nodules",
            profiles=("tiny", "full"),
            phantoms=True,
        ),
        "skin": BuiltinJob(
            name="skin",
            summary="Class of skin lesions from dermoscopic pictures, in ISIC's layout or with an ECVL dataset YAML",
            module="dhctl.ray_jobs.skin",
            needs=("torch", "monai", "sklearn", "scipy", "PIL", "yaml", "pyarrow", "tenacity", "filelock"),
            extra="skin",
            profiles=("tiny", "full"),
            phantoms=True,
        ),
    }
)
"""Every job that comes with dhctl, by name."""
