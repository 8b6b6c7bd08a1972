"""What lies beside a map of classes: its attribute table (GDAL, ArcGIS) and its style (QGIS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from ..files import write_bytes
from .writing import colours

_OURS = "rs_models"
# Usages of columns in GDAL's GDALRATFieldUsage, and its field types.
_NAME, _VALUE, _RED, _GREEN, _BLUE, _GENERIC = 2, 5, 6, 7, 8, 0
_INTEGER, _REAL, _TEXT = 0, 1, 2


def write_table(raster: Path, names: Sequence[str], hectares: Mapping[str, float]) -> Path:
    """Writes `<raster>.aux.xml`: name, colour and hectares of each class.

    Args:
        raster: Map of classes.
        names: Names of the classes.
        hectares: Ground by name; classes that do not occur are 0.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    categories = ElementTree.SubElement(band, "CategoryNames")
    for name in names:
        ElementTree.SubElement(categories, "Category").text = name
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    fields = (
        ("Value", _INTEGER, _VALUE),
        ("Class", _TEXT, _NAME),
        ("Red", _INTEGER, _RED),
        ("Green", _INTEGER, _GREEN),
        ("Blue", _INTEGER, _BLUE),
        ("Hectares", _REAL, _GENERIC),
    )
    for number, (name, kind, usage) in enumerate(fields):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(number))
        ElementTree.SubElement(field, "Name").text = name
        ElementTree.SubElement(field, "Type").text = str(kind)
        ElementTree.SubElement(field, "Usage").text = str(usage)
    palette = colours(len(names))
    for number, name in enumerate(names):
        row = ElementTree.SubElement(table, "Row", index=str(number))
        red, green, blue, _ = palette[number]
        for value in (number, name, red, green, blue, f"{hectares.get(name, 0.0):.4f}"):
            ElementTree.SubElement(row, "F").text = str(value)
    path = raster.with_name(f"{raster.name}.aux.xml")
    write_bytes(path, ElementTree.tostring(root))
    return path


def write_style(raster: Path, names: Sequence[str]) -> Path | None:
    """Writes `<raster without suffix>.qml`, which QGIS reads with the map.

    Args:
        raster: Map of classes.
        names: Names of the classes.

    Returns:
        The file; None where a style of somebody else lies there, which stays.
    """
    path = raster.with_suffix(".qml")
    if path.is_file() and _OURS.encode() not in path.read_bytes()[:500]:
        return None
    root = ElementTree.Element("qgis", styleCategories="Symbology", origin=_OURS)
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    entries = ElementTree.SubElement(renderer, "colorPalette")
    palette = colours(len(names))
    for number, name in enumerate(names):
        red, green, blue, _ = palette[number]
        ElementTree.SubElement(
            entries,
            "paletteEntry",
            value=str(number),
            label=name,
            color=f"#{red:02x}{green:02x}{blue:02x}",
            alpha="255",
        )
    write_bytes(path, b"<!DOCTYPE qgis>\n" + ElementTree.tostring(root))
    return path
