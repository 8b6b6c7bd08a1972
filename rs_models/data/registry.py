"""Known data sets: where they are on the Hub, their columns, bands and splits.

Facts were read from the repositories' cards. `revision` is None where no commit has been checked
yet; the commit that was loaded is then recorded in every result (`sources.resolve_revision`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..bands import SENSORS

# EuroSAT's 13-band files list B8A last, after B12 (github.com/phelber/EuroSAT, issue 7; visible in
# the values too: the tenth band, cirrus, is near 10 everywhere).
EUROSAT_MS_BANDS = (
    *(name for name in SENSORS["sentinel2"] if name != "nir_narrow"),
    "nir_narrow",
)


@dataclass(frozen=True)
class KnownSet:
    """One data set of the registry.

    Attributes:
        hub_id: Hub repository with Parquet files.
        splits: Split name -> rows.
        licence: As stated by the repository or the authors.
        revision: Pinned commit, or None.
        columns: Our column name -> the repository's.
        bands: Bands of `image` in stored order.
        note: What to know before using it.
    """

    hub_id: str
    splits: Mapping[str, int]
    licence: str
    revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    bands: tuple[str, ...] = SENSORS["rgb"]
    note: str = ""


_EUROSAT_SPLITS = {"train": 16_200, "validation": 5_400, "test": 5_400}

KNOWN: dict[str, KnownSet] = {
    "timm/eurosat-rgb": KnownSet("timm/eurosat-rgb", _EUROSAT_SPLITS, "MIT", note="64 px"),
    "blanchon/EuroSAT_RGB": KnownSet(
        "blanchon/EuroSAT_RGB", _EUROSAT_SPLITS, "not stated by the repository", note="64 px"
    ),
    "blanchon/EuroSAT_MSI": KnownSet(
        "blanchon/EuroSAT_MSI",
        _EUROSAT_SPLITS,
        "not stated by the repository",
        bands=EUROSAT_MS_BANDS,
        note="64 px, uint16 reflectance x 10,000 (level 1C); B8A is the last band",
    ),
    "timm/resisc45": KnownSet(
        "timm/resisc45",
        {"train": 18_900, "validation": 6_300, "test": 6_300},
        "not stated by the repository; research use by the authors",
        note="256 px",
    ),
    "blanchon/UC_Merced": KnownSet(
        "blanchon/UC_Merced",
        {"train": 2_100},
        "public domain (USGS imagery)",
        note="256 px; train only",
    ),
    "blanchon/PatternNet": KnownSet(
        "blanchon/PatternNet",
        {"train": 30_400},
        "not stated; research use by the authors",
        note="256 px; train only",
    ),
    "jonathan-roberts1/RSSCN7": KnownSet(
        "jonathan-roberts1/RSSCN7",
        {"train": 2_800},
        "not stated; research use",
        note="400 px; train only",
    ),
    "jonathan-roberts1/WHU-RS19": KnownSet(
        "jonathan-roberts1/WHU-RS19", {"train": 1_005}, "CC-BY-4.0", note="600 px; train only"
    ),
    "jonathan-roberts1/NWPU-RESISC45": KnownSet(
        "jonathan-roberts1/NWPU-RESISC45", {"train": 31_500}, "other", note="256 px; train only"
    ),
    "HichTala/dior": KnownSet(
        "HichTala/dior",
        {},
        "CC-BY-SA by the repository, CC-BY-NC by others: check before use",
        note="object boxes",
    ),
}
"""Data sets by name; any other Hub id works too, with its own column names."""


def find(name: str) -> KnownSet | None:
    """The entry for a Hub id or its last part, in any case; None when there is none."""
    key = name.lower()
    for known, entry in KNOWN.items():
        if key in (known.lower(), known.lower().split("/")[-1]):
            return entry
    return None
