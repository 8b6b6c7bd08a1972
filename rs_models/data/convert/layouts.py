"""Data sets as their owners distribute them: what lies where, and what it means.

Class names and folder names are the owners'; `None` stands for what they do not state or what we
have not seen stated. Nothing here is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...bands import SENSORS
from ..names import IGNORE
from ..registry import EUROSAT_MS_BANDS
from . import class_names

Task = Literal["scenes", "segmentation", "detection"]
_JPG, _PNG, _TIF, _ANY = r"\.jpe?g", r"\.png", r"\.tiff?", r"\.(?:jpe?g|png|tiff?)"
_CLASS = r"(?P<cls>[^/]+)/(?P<name>[^/]+)"


@dataclass(frozen=True)
class Layout:
    """One data set.

    Attributes:
        name: Name that the command takes.
        title: Name that the owners write.
        task: "scenes" (class folders), "segmentation" or "detection".
        licence: SPDX-like identifier of the Hub; "other" where the terms are the owners' own.
        terms: The terms in a sentence.
        homepage: The owners' page; empty where we know of none that lasts.
        citation: Paper to cite.
        images: Regular expression of the end of an image's path; groups `name`, and `cls`, `split`,
            `scene` where the layout has them.
        partners: Regular expression of mask or annotation paths, same groups; empty for scenes.
        classes: Class names in the order of their numbers; empty takes the sorted folder names.
        num_classes: Number of classes of a layout whose class names are taken from the folders.
        renamed: Folder name -> class name.
        bands: Bands of the image, in the files' order.
        stored_bands: Bands in the order in which they are stored here; None keeps the files'.
        mask: Value or colour in the mask -> class number, `IGNORE` for none.
        mask_threshold: Channels of a colour mask are 255 from this value on, else 0; None compares
            exactly.
        annotation: Format of a detection set's files.
        official: Split -> image names (without suffix), where a list defines them.
        window: Side in pixels that large tiles are cut to; None keeps them whole.
        total: Images in all, as the owners state it.
        archives: Names of the files that the owners distribute.
        note: What else to know.
    """

    name: str
    title: str
    task: Task
    licence: str
    terms: str
    homepage: str
    citation: str
    images: str
    partners: str = ""
    classes: tuple[str, ...] = ()
    num_classes: int | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    bands: tuple[str, ...] = SENSORS["rgb"]
    stored_bands: tuple[str, ...] | None = None
    mask: dict[int | tuple[int, int, int], int] = field(default_factory=dict)
    mask_threshold: int | None = None
    annotation: Literal["voc", "levir", "dota"] | None = None
    official: dict[str, tuple[str, ...]] = field(default_factory=dict)
    window: int | None = None
    total: int | None = None
    archives: tuple[str, ...] = ()
    note: str = ""


_RESEARCH = "No licence is stated; offered for research by its authors."
# The benchmark's areas with public labels, and those that were held back for the contest.
_POTSDAM = {
    "train": (
        *("2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12"),
        *("5_10", "5_11", "5_12", "6_7", "6_8", "6_9", "6_10", "6_11", "6_12"),
        *("7_7", "7_8", "7_9", "7_10", "7_11", "7_12"),
    ),
    "test": (
        *("2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15", "5_13", "5_14", "5_15"),
        *("6_13", "6_14", "6_15", "7_13"),
    ),
}

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="aid",
            title="AID",
            task="scenes",
            licence="other",
            terms=f"{_RESEARCH} The images are crops of Google Earth.",
            homepage="https://captain-whu.github.io/AID/",
            citation="Xia et al., AID: A Benchmark Data Set for Performance Evaluation of Aerial "
            "Scene Classification, IEEE TGRS 2017",
            images=_CLASS + _JPG,
            classes=class_names.AID,
            total=10_000,
            archives=("AID.zip",),
        ),
        Layout(
            name="resisc45",
            title="NWPU-RESISC45",
            task="scenes",
            licence="other",
            terms=_RESEARCH,
            homepage="https://gcheng-nwpu.github.io/",
            citation="Cheng et al., Remote Sensing Image Scene Classification: Benchmark and State "
            "of the Art, Proceedings of the IEEE 2017",
            images=_CLASS + _JPG,
            classes=class_names.RESISC,
            total=31_500,
            archives=("NWPU-RESISC45.rar", "NWPU-RESISC45.zip"),
        ),
        Layout(
            name="uc-merced",
            title="UC Merced Land Use",
            task="scenes",
            licence="other",
            terms="Imagery of the USGS National Map, in the public domain.",
            homepage="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
            citation="Yang and Newsam, Bag-of-Visual-Words and Spatial Extensions for Land-Use "
            "Classification, ACM SIGSPATIAL GIS 2010",
            images=_CLASS + _ANY,
            classes=class_names.UCM,
            total=2_100,
            archives=("UCMerced_LandUse.zip",),
        ),
        Layout(
            name="eurosat-rgb",
            title="EuroSAT (RGB)",
            task="scenes",
            licence="mit",
            terms="MIT; contains modified Copernicus Sentinel data.",
            homepage="https://github.com/phelber/EuroSAT",
            citation="Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land "
            "Use and Land Cover Classification, IEEE JSTARS 2019",
            images=_CLASS + _JPG,
            classes=class_names.EUROSAT,
            total=27_000,
            archives=("EuroSAT.zip", "EuroSAT_RGB.zip"),
        ),
        Layout(
            name="eurosat-ms",
            title="EuroSAT (13 bands)",
            task="scenes",
            licence="mit",
            terms="MIT; contains modified Copernicus Sentinel data.",
            homepage="https://github.com/phelber/EuroSAT",
            citation="Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land "
            "Use and Land Cover Classification, IEEE JSTARS 2019",
            images=_CLASS + _TIF,
            classes=class_names.EUROSAT,
            bands=EUROSAT_MS_BANDS,
            stored_bands=SENSORS["sentinel2"],
            total=27_000,
            archives=("EuroSATallBands.zip", "EuroSAT_MS.zip"),
            note="Reflectance x 10,000 (level 1C). The files list B8A last; here the bands are in "
            "the order of Sentinel-2.",
        ),
        Layout(
            name="patternnet",
            title="PatternNet",
            task="scenes",
            licence="other",
            terms=f"{_RESEARCH} The images are from Google Earth and Google Maps.",
            homepage="https://sites.google.com/view/zhouwx/dataset",
            citation="Zhou et al., PatternNet: A Benchmark Dataset for Performance Evaluation of "
            "Remote Sensing Image Retrieval, ISPRS Journal 2018",
            images=_CLASS + _JPG,
            classes=class_names.PATTERNNET,
            total=30_400,
            archives=("PatternNet.zip",),
        ),
        Layout(
            name="rsscn7",
            title="RSSCN7",
            task="scenes",
            licence="other",
            terms=_RESEARCH,
            homepage="https://sites.google.com/site/qinzoucn/documents",
            citation="Zou et al., Deep Learning Based Feature Selection for Remote Sensing Scene "
            "Classification, IEEE GRSL 2015",
            images=_CLASS + _JPG,
            classes=(
                *("Grass", "Field", "Industry", "RiverLake", "Forest", "Resident", "Parking"),
            ),
            renamed={
                f"{'abcdefg'[i]}{name}": name
                for i, name in enumerate(
                    ("Grass", "Field", "Industry", "RiverLake", "Forest", "Resident", "Parking")
                )
            },
            total=2_800,
            archives=("RSSCN7.zip",),
        ),
        Layout(
            name="whu-rs19",
            title="WHU-RS19",
            task="scenes",
            licence="other",
            terms=f"{_RESEARCH} The images are from Google Earth.",
            homepage="https://captain-whu.github.io/BED4RS/",
            citation="Xia et al., Structural High-Resolution Satellite Image Indexing, ISPRS TC "
            "VII Symposium 2010",
            images=_CLASS + _JPG,
            classes=class_names.WHU,
            total=1_005,
            archives=("WHU-RS19.zip",),
        ),
        Layout(
            name="nasc-tg2",
            title="NaSC-TG2",
            task="scenes",
            licence="other",
            terms=_RESEARCH,
            homepage="",
            citation="Zhou et al., NaSC-TG2: Natural Scene Classification With Tiangong-2 Remotely "
            "Sensed Imagery, IEEE JSTARS 2021",
            images=_CLASS + rf"(?:{_JPG}|{_PNG})",
            classes=class_names.NASC,
            total=20_000,
        ),
        Layout(
            name="rsd46-whu",
            title="RSD46-WHU",
            task="scenes",
            licence="other",
            terms="For education, research and commercial use, by its authors.",
            homepage="https://github.com/RSIA-LIESMARS-WHU/RSD46-WHU",
            citation="Xiao et al., High-Resolution Remote Sensing Image Retrieval Based on CNNs "
            "from a Dimensional Perspective, Remote Sensing 2017",
            images=r"(?P<split>train|val)/" + _CLASS + rf"(?:{_JPG}|{_PNG})",
            num_classes=46,
            total=117_000,
        ),
        Layout(
            name="potsdam",
            title="ISPRS Potsdam",
            task="segmentation",
            licence="other",
            terms="ISPRS benchmark terms: for research, with acknowledgement.",
            homepage="https://www.isprs.org/education/benchmarks/UrbanSemLab/",
            citation="Rottensteiner et al., The ISPRS Benchmark on Urban Object Classification and "
            "3D Building Reconstruction, ISPRS Annals 2012",
            images=r"top_potsdam_(?P<name>\d+_\d+)_RGBIR\.tif",
            partners=r"top_potsdam_(?P<name>\d+_\d+)_label\.tif",
            classes=(
                *("impervious surface", "building", "low vegetation", "tree", "car", "clutter"),
            ),
            bands=SENSORS["rgbn"],
            mask={
                (255, 255, 255): 0,
                (0, 0, 255): 1,
                (0, 255, 255): 2,
                (0, 255, 0): 3,
                (255, 255, 0): 4,
                (255, 0, 0): 5,
            },
            official=_POTSDAM,
            window=256,
            total=38,
            archives=("4_Ortho_RGBIR.zip", "5_Labels_all.zip"),
        ),
        Layout(
            name="deepglobe-land-cover",
            title="DeepGlobe Land Cover",
            task="segmentation",
            licence="other",
            terms="DeepGlobe challenge terms: non-commercial research.",
            homepage="http://deepglobe.org/",
            citation="Demir et al., DeepGlobe 2018: A Challenge to Parse the Earth through "
            "Satellite Images, CVPR Workshops 2018",
            images=r"(?P<name>\d+)_sat\.jpg",
            partners=r"(?P<name>\d+)_mask\.png",
            classes=(*("urban", "agriculture", "rangeland", "forest", "water", "barren"),),
            mask={
                (0, 255, 255): 0,
                (255, 255, 0): 1,
                (255, 0, 255): 2,
                (0, 255, 0): 3,
                (0, 0, 255): 4,
                (255, 255, 255): 5,
                (0, 0, 0): IGNORE,  # unknown
            },
            mask_threshold=128,  # the owners' own advice: masks are not all pure
            total=803,
            note="Of the owners' splits only the training images have public masks; images without "
            "one are left out.",
        ),
        Layout(
            name="dlrsd",
            title="DLRSD",
            task="segmentation",
            licence="other",
            terms=_RESEARCH,
            homepage="https://sites.google.com/view/zhouwx/dataset",
            citation="Shao et al., Performance Evaluation of Single-Label and Multi-Label Remote "
            "Sensing Image Retrieval Using a Dense Labeling Dataset, Remote Sensing 2018",
            images=r"Images/[^/]+/(?P<name>[^/]+)" + _TIF,
            partners=r"Labels/[^/]+/(?P<name>[^/]+)" + _PNG,
            classes=class_names.DLRSD,
            mask={0: IGNORE, **{i + 1: i for i in range(len(class_names.DLRSD))}},
            total=2_100,
            archives=("DLRSD.zip",),
        ),
        Layout(
            name="loveda",
            title="LoveDA",
            task="segmentation",
            licence="cc-by-nc-sa-4.0",
            terms="CC BY-NC-SA 4.0.",
            homepage="https://github.com/Junjue-Wang/LoveDA",
            citation="Wang et al., LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive "
            "Semantic Segmentation, NeurIPS Datasets and Benchmarks 2021",
            images=r"(?P<split>Train|Val)/(?P<scene>Urban|Rural)/images_png/(?P<name>\d+)\.png",
            partners=r"(?P<split>Train|Val)/(?P<scene>Urban|Rural)/masks_png/(?P<name>\d+)\.png",
            classes=(
                *("background", "building", "road", "water", "barren", "forest", "agriculture"),
            ),
            mask={0: IGNORE, **{i + 1: i for i in range(7)}},
            total=4_191,
            archives=("Train.zip", "Val.zip"),
            note="The test images have no public masks and are left out.",
        ),
        Layout(
            name="massachusetts-roads",
            title="Massachusetts Roads",
            task="segmentation",
            licence="other",
            terms="No licence is stated; cite Mnih's thesis.",
            homepage="https://www.cs.toronto.edu/~vmnih/data/",
            citation="Mnih, Machine Learning for Aerial Image Labeling, PhD thesis, University of "
            "Toronto 2013",
            images=r"(?P<split>train|valid|val|test)(?:/sat)?/(?P<name>[^/]+)" + _TIF,
            partners=r"(?P<split>train|valid|val|test)(?:/map|_labels)/(?P<name>[^/]+)" + _TIF,
            classes=("background", "road"),
            mask={0: 0, 255: 1},
            total=1_171,
            archives=("mass_roads.zip",),
        ),
        Layout(
            name="levir",
            title="LEVIR",
            task="detection",
            licence="other",
            terms=_RESEARCH,
            homepage="http://levir.buaa.edu.cn/Code.htm",
            citation="Zou and Shi, Random Access Memories: A New Paradigm for Target Detection in "
            "High Resolution Aerial Remote Sensing Images, IEEE TIP 2018",
            images=r"(?P<name>[^/]+)\.jpg",
            partners=r"(?P<name>[^/]+)\.txt",
            classes=("airplane", "ship", "oilpot"),
            annotation="levir",
            total=None,
            note="A line of a label file is read as class (1, 2 or 3) and xmin ymin xmax ymax.",
        ),
        Layout(
            name="dior",
            title="DIOR",
            task="detection",
            licence="other",
            terms="For academic use; the terms of other copies (CC BY-SA, CC BY-NC) differ.",
            homepage="https://gcheng-nwpu.github.io/",
            citation="Li et al., Object Detection in Optical Remote Sensing Images: A Survey and a "
            "New Benchmark, ISPRS Journal 2020",
            images=r"JPEGImages-(?P<split>trainval|test)/(?P<name>\d+)\.jpg",
            partners=r"Annotations/(?:Horizontal Bounding Boxes/)?(?P<name>\d+)\.xml",
            classes=class_names.DIOR,
            annotation="voc",
            total=23_463,
            archives=("JPEGImages-trainval.zip", "JPEGImages-test.zip", "Annotations.zip"),
            note="The owners' training and validation images (trainval) are the train split.",
        ),
        Layout(
            name="dota",
            title="DOTA-v1.0",
            task="detection",
            licence="other",
            terms="For academic purposes only; the images have their providers' terms.",
            homepage="https://captain-whu.github.io/DOTA/",
            citation="Xia et al., DOTA: A Large-Scale Dataset for Object Detection in Aerial "
            "Images, CVPR 2018",
            images=r"(?P<split>train|val)/images/(?:images/)?(?P<name>P\d+)\.png",
            partners=r"(?P<split>train|val)/labelTxt[^/]*/(?:labelTxt/)?(?P<name>P\d+)\.txt",
            classes=class_names.DOTA,
            annotation="dota",
            total=None,
            note="Oriented boxes are kept as `polygon`; `bbox` is the upright box around them. The "
            "test images have no public labels and are left out.",
        ),
    )
}
