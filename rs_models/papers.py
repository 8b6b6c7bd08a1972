"""The papers behind the methods, as data: what pages, cards and citations are rendered from.

This module imports nothing, so that both halves of the package may read it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

_GRSL = ("IEEE GRSL", "IEEE Geoscience and Remote Sensing Letters")
_G_RSIM = "https://github.com/GeoX-Lab/G-RSIM/tree/main"


@dataclass(frozen=True)
class Baseline:
    """A method of other authors that is a setting of ours.

    Attributes:
        name: As its authors call it.
        arxiv: Its paper's number.
        arguments: Arguments of `training/pretrain.py`.
    """

    name: str
    arxiv: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What is needed to cite a work.

    Attributes:
        label: The method's name as its authors write it, or what the work is called here.
        title: Title of the paper.
        authors: "Family, Given", all of them, in order.
        venue: Short name of the journal or conference and its whole name.
        year: Year of publication.
        doi: DOI of the published version; arXiv's (10.48550/arXiv.NUMBER) where it has none.
        arxiv: Number of the free version; None where there is none.
        conference: Whether it stands in the proceedings of a conference and not in a journal.
        original: Title in the language it is written in, where that is not English.
    """

    label: str
    title: str
    authors: tuple[str, ...]
    venue: tuple[str, str]
    year: int
    doi: str
    arxiv: str | None
    conference: bool = False
    original: str | None = None

    @property
    def link(self) -> str:
        """Where to read it: arXiv where it is there, else the publisher's page."""
        return (
            f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else f"https://doi.org/{self.doi}"
        )


@dataclass(frozen=True, kw_only=True)
class Paper(Reference):
    """One method.

    Attributes:
        code: Address of the authors' code; None where none is published.
        learns_from: What the labels are replaced by, in a few words.
        settings: What users turn first, as dotted keys of `training/pretrain.py`, with defaults.
        recipe: Config at the paper's scale.
        small_recipe: Config for CPU cores.
        baselines: Methods of others that are settings of this one.
    """

    code: str | None
    learns_from: str
    settings: dict[str, Any]
    recipe: str
    small_recipe: str
    baselines: tuple[Baseline, ...] = ()


# The two reviews whose frame the code follows.
REVIEWS: dict[str, Reference] = {
    "survey": Reference(
        label="Survey",
        title="Self-Supervised Remote Sensing Feature Learning: Learning Paradigms, Challenges, "
        "and Future Works",
        authors=("Tao, Chao", "Qi, Ji", "Guo, Mingning", "Zhu, Qing", "Li, Haifeng"),
        venue=("IEEE TGRS", "IEEE Transactions on Geoscience and Remote Sensing"),
        year=2023,
        doi="10.1109/TGRS.2023.3276853",
        arxiv="2211.08129",
    ),
    "review": Reference(
        label="Review",
        title="Remote Sensing Image Intelligent Interpretation: From Supervised Learning to "
        "Self-Supervised Learning",
        original="遥感影像智能解译:从监督学习到自监督学习",
        authors=("Tao, Chao", "Yin, Ziwei", "Zhu, Qing", "Li, Haifeng"),
        venue=("AGCS", "Acta Geodaetica et Cartographica Sinica"),
        year=2021,
        doi="10.11947/j.AGCS.2021.20210089",
        arxiv=None,
    ),
}

# Short name -> paper; one row for each row of `methods.METHODS`, in the same order.
PAPERS: dict[str, Paper] = {
    "rsisc": Paper(
        label="RSISC",
        title="Remote Sensing Image Scene Classification With Self-Supervised Paradigm Under "
        "Limited Labeled Samples",
        authors=("Tao, Chao", "Qi, Ji", "Lu, Weipeng", "Wang, Hao", "Li, Haifeng"),
        venue=_GRSL,
        year=2020,
        doi="10.1109/LGRS.2020.3038420",
        arxiv="2010.00882",
        code="https://github.com/ErenTuring/RSISC_SSL_Paradigm",
        learns_from="which two views show one image; or the hidden centre of an image "
        "(`inpainting`); or the order of its shuffled cells (`relative_position`); or, as a "
        "baseline, the image itself (`autoencoder`)",
        settings={
            "method.signal": "instance_discrimination",
            "method.temperature": 0.5,
            "method.puzzle_grid": 2,
            "method.permutations": 24,
        },
        recipe="training/configs/rsisc_resnet50.yaml",
        small_recipe="training/configs/rsisc_mini_aid.yaml",
        baselines=(Baseline("SimCLR", "2002.05709", "method.name=rsisc"),),
    ),
    "tov": Paper(
        label="TOV",
        title="TOV: The Original Vision Model for Optical Remote Sensing Image Understanding via "
        "Self-supervised Learning",
        authors=(
            "Tao, Chao",
            "Qi, Ji",
            "Zhang, Guo",
            "Zhu, Qing",
            "Lu, Weipeng",
            "Li, Haifeng",
        ),
        venue=(
            "IEEE JSTARS",
            "IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing",
        ),
        year=2023,
        doi="10.1109/JSTARS.2023.3271312",
        arxiv="2204.04716",
        code=f"{_G_RSIM}/TOV_v1",
        learns_from="which two views show one image; general images first, then remote sensing "
        "images with balanced categories",
        settings={
            "method.temperature": 0.5,
            "data.sampling": "natural",
            "data.guidance": "label",
            "stages": [],
        },
        recipe="training/configs/tov_resnet50.yaml",
        small_recipe="training/configs/tov_resnet18_aid.yaml",
    ),
    "false": Paper(
        label="FALSE",
        title="FALSE: False Negative Samples Aware Contrastive Learning for Semantic Segmentation "
        "of High-Resolution Remote Sensing Image",
        authors=(
            "Zhang, Zhaoyang",
            "Wang, Xuying",
            "Mei, Xiaoming",
            "Tao, Chao",
            "Li, Haifeng",
        ),
        venue=_GRSL,
        year=2022,
        doi="10.1109/LGRS.2022.3222836",
        arxiv="2211.07928",
        code="https://github.com/GeoX-Lab/FALSE",
        learns_from="which two views show one image; another image that looks as alike as they do "
        "counts as the same one",
        settings={
            "method.confidence": 1.0,
            "method.threshold": 0.9,
            "method.scope": "batch",
            "method.projector_relu": False,
        },
        recipe="training/configs/false_resnet50.yaml",
        small_recipe="training/configs/false_mini_aid.yaml",
        baselines=(
            Baseline(
                "SimCLR, with FALSE's projector and views",
                "2002.05709",
                "method.name=false method.confidence=0.0",
            ),
        ),
    ),
    "sticl": Paper(
        label="STICL",
        title="Spatial-Temporal Invariant Contrastive Learning for Remote Sensing Scene "
        "Classification",
        authors=(
            "Huang, Haozhe",
            "Mou, Zhongfeng",
            "Li, Yunying",
            "Li, Qiujun",
            "Chen, Jie",
            "Li, Haifeng",
        ),
        venue=_GRSL,
        year=2022,
        doi="10.1109/LGRS.2022.3173419",
        arxiv=None,
        code=f"{_G_RSIM}/T-SC-STICL",
        learns_from="which view shows the same image among a queue of earlier ones, now and then "
        "in the colours of another place or season",
        settings={
            "method.transfer_probability": 0.1,
            "method.transfer_solver": "emd",
            "method.queue_size": 65536,
            "data.place": None,
        },
        recipe="training/configs/sticl_resnet50.yaml",
        small_recipe="training/configs/sticl_mini_aid.yaml",
        baselines=(
            Baseline(
                "MoCo v2",
                "2003.04297",
                "method.name=sticl method.transfer_probability=0.0 method.recipe=moco_v2",
            ),
        ),
    ),
    "glcnet": Paper(
        label="GLCNet",
        title="Global and Local Contrastive Self-Supervised Learning for Semantic Segmentation of "
        "HR Remote Sensing Images",
        authors=(
            "Li, Haifeng",
            "Li, Yi",
            "Zhang, Guo",
            "Liu, Ruoyun",
            "Huang, Haozhe",
            "Zhu, Qing",
            "Tao, Chao",
        ),
        venue=("IEEE TGRS", "IEEE Transactions on Geoscience and Remote Sensing"),
        year=2022,
        doi="10.1109/TGRS.2022.3147513",
        arxiv="2106.10605",
        code=f"{_G_RSIM}/T-SS-GLCNet",
        learns_from="which two views show one image, by mean and variance of their features, and "
        "which regions of them show the same ground; encoder and decoder learn",
        settings={
            "method.global_weight": 0.5,
            "method.style": True,
            "method.patches": 4,
            "method.output_stride": 16,
        },
        recipe="training/configs/glcnet_resnet50.yaml",
        small_recipe="training/configs/glcnet_mini_aid.yaml",
    ),
    "last": Paper(
        label="LaST",
        title="LaST: Label-Free Self-Distillation Contrastive Learning With Transformer "
        "Architecture for Remote Sensing Image Scene Classification",
        authors=(
            "Wang, Xuying",
            "Zhu, Jiawei",
            "Yan, Zhengliang",
            "Zhang, Zhaoyang",
            "Zhang, Yunsheng",
            "Chen, Yansheng",
            "Li, Haifeng",
        ),
        venue=_GRSL,
        year=2022,
        doi="10.1109/LGRS.2022.3185088",
        arxiv=None,
        code=None,
        learns_from="what a slow average of the network says of the whole image, from small parts "
        "of it; no negatives",
        settings={
            "method.local_views": 8,
            "method.scale_alignment": "views",
            "method.region_matching": False,
            "method.prototypes": 65536,
        },
        recipe="training/configs/last_swin_tiny.yaml",
        small_recipe="training/configs/last_vit_mini_aid.yaml",
        baselines=(
            Baseline(
                "DINO's objective", "2104.14294", "method.name=last backbone=vit_small_patch16"
            ),
        ),
    ),
}


def bibtex(name: str) -> str:
    """The entry of a method's paper or of a review.

    Args:
        name: A key of `PAPERS` or `REVIEWS`.
    """
    paper = PAPERS.get(name) or REVIEWS[name]
    fields = {
        "title": f"{{{paper.title}}}",  # inner braces keep the capitals
        "author": " and ".join(paper.authors),
        "booktitle" if paper.conference else "journal": paper.venue[1],
        "year": str(paper.year),
        "doi": paper.doi,
    }
    if paper.arxiv:
        fields["note"] = f"arXiv:{paper.arxiv}"
    if paper.original:
        fields["note"] = f"In Chinese: {paper.original}"
    lines = []
    for key, value in fields.items():
        lead = f"  {key:<7} = {{"
        lines.append(
            textwrap.fill(
                f"{lead}{value}}},", 100, subsequent_indent=" " * len(lead), break_on_hyphens=False
            )
        )
    family = "".join(filter(str.isalnum, paper.authors[0].partition(",")[0].lower()))
    kind = "inproceedings" if paper.conference else "article"
    return "\n".join([f"@{kind}{{{family}{paper.year}{name},", *lines, "}"])
