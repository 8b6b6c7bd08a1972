"""What one user does with a scene: points of classes, the map that follows, files to keep."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import UserError
from ..predict import Predictor, predict
from ..predict.vectors import write_polygons
from .dense_scene import DenseScene
from .keeping import result_folder
from .pictures import heat, overlay, palette
from .pile_desk import MAX_CLASSES, checked_name
from .uploads import open_tiff, read_picture, shrunk

NODATA = 255
MAX_POINTS = 300
"""Points that a user may set."""
OPACITY = 0.62
_SHOWN = 1024  # pixels of the longer side of a finished map as it is shown


class Work:
    """Points on a scene, and the map that they make.

    Args:
        scene: With features.
        classes: Names of classes to begin with.
        points: (x, y, class name) to begin with; x and y from 0 to 1.

    Attributes:
        scene: The scene.
        classes: Names of the classes, in the order of their keys.
        points: (x, y, class name), in the order in which they were set.
    """

    def __init__(
        self,
        scene: DenseScene,
        classes: Sequence[str] = (),
        points: Sequence[tuple[float, float, str]] = (),
    ) -> None:
        """Holds its parts."""
        self.scene = scene
        self.classes = list(classes)
        self.points = list(points)

    def add(self, x: Any, y: Any, name: str, classes: Sequence[str]) -> None:
        """Sets a point.

        Args:
            x: From 0 at the left edge to 1 at the right one.
            y: From 0 at the upper edge to 1 at the lower one.
            name: Its class.
            classes: Names of all classes.

        Raises:
            UserError: A place outside of the scene, a class that is none, or too many points.
        """
        self.name_classes(classes)
        if name not in self.classes:
            raise UserError("That class is not among yours: add it first.")
        if len(self.points) >= MAX_POINTS:
            raise UserError(f"{MAX_POINTS} points are the most: take some back.")
        self.points.append((*place(x, y), name))

    def name_classes(self, classes: Sequence[str]) -> None:
        """Takes the names of the classes as the page has them.

        Raises:
            UserError: Names that are none, double, or too many.
        """
        if len(classes) > 2 * MAX_CLASSES:  # before each is looked at
            raise UserError(f"Name each class once, and {MAX_CLASSES} at most.")
        names = [checked_name(name) for name in classes]
        names += [name for _, _, name in self.points if name not in names]
        names = list(dict.fromkeys(names))
        if len(names) > MAX_CLASSES:
            raise UserError(f"Name each class once, and {MAX_CLASSES} at most.")
        self.classes = names

    def undo(self) -> None:
        """Takes the last point away."""
        del self.points[-1:]

    def clear(self) -> None:
        """Takes all points away."""
        self.points = []

    @property
    def used(self) -> list[str]:
        """Classes that have points."""
        there = {name for _, _, name in self.points}
        return [name for name in self.classes if name in there]

    @property
    def colours(self) -> list[tuple[int, ...]]:
        """Colours of `used`, each that of its key."""
        every = dict(zip(self.classes, palette(self.classes), strict=True))
        return [every[name] for name in self.used]

    def mask(self, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """Class numbers (H, W) of `used`; None while fewer than two classes have points.

        Args:
            size: Height and width; None is the picture's.
        """
        names = self.used
        if len(names) < 2:
            return None
        numbers = np.array([names.index(name) for _, _, name in self.points])
        scores = self.scene.scores(np.array([point[:2] for point in self.points]), numbers)
        grid = torch.from_numpy(scores).permute(2, 0, 1)[None]
        shape = size or self.scene.picture.shape[:2]
        wide = F.interpolate(grid, shape, mode="bilinear", align_corners=False)
        return wide[0].argmax(0).byte().numpy()

    def pictures(self, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The scene, and the map over it."""
        picture = self.scene.picture
        if mask is None:
            return picture, picture
        return picture, overlay(picture, mask, self.colours, OPACITY)

    def like(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """The scene, and how like a point each place of it is."""
        picture = self.scene.picture
        return picture, heat(picture, self.scene.likeness(*place(x, y)))

    def legend(self, mask: np.ndarray) -> str:
        """Classes with colour, share, and area where the file has a place."""
        hectares = None
        if self.scene.ground is not None:
            small = np.array(_nearest(mask, self.scene.ground.shape))
            hectares = [
                float(self.scene.ground[small == number].sum()) / 10_000
                for number in range(len(self.used))
            ]
        return legend(mask, self.used, self.colours, hectares)

    def files(self) -> tuple[str, str]:
        """The map as GeoTIFF at the file's own size, and its polygons as GeoJSON.

        Raises:
            UserError: Points of fewer than two classes.
        """
        mask = self.mask(self.scene.size)
        if mask is None:
            raise UserError("Set points of two classes first: then there is a map.")
        return written(mask, self.used, self.colours, self.scene.name, self.scene.place)


def place(x: Any, y: Any) -> tuple[float, float]:
    """A place of a scene.

    Raises:
        UserError: It is none, or lies outside.
    """
    if not all(isinstance(v, int | float) and 0 <= v <= 1 for v in (x, y)):
        raise UserError("That point lies outside of the scene: click inside.")
    return float(x), float(y)


def written(
    mask: np.ndarray,
    names: Sequence[str],
    colours: Sequence[tuple[int, ...]],
    name: str,
    place: dict[str, Any],
) -> tuple[str, str]:
    """A map as GeoTIFF and its polygons as GeoJSON.

    Args:
        mask: (H, W) uint8 class numbers, `NODATA` where there are none.
        names: Names of the classes.
        colours: Colours of the classes.
        name: What the files are called after.
        place: Coordinate system and transform, where there are any.
    """
    import rasterio

    tiff = result_folder() / f"{name}-classes.tif"
    height, width = mask.shape
    settings = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": NODATA}
    with rasterio.open(
        tiff, "w", height=height, width=width, compress="deflate", **settings, **place
    ) as out:
        out.write(mask, 1)
        out.write_colormap(1, {n: (*colour, 255) for n, colour in enumerate(colours)})
        out.update_tags(1, **{f"class_{n}": one for n, one in enumerate(names)})
    polygons = tiff.with_suffix(".geojson")
    write_polygons(tiff, polygons, list(names))
    return str(tiff), str(polygons)


class Finished:
    """The map of a fine-tuned model, which needs no points.

    Args:
        path: Path of an image or GeoTIFF.
        predictor: A segmentation model.
    """

    def __init__(self, path: str, predictor: Predictor) -> None:
        """Makes the map."""
        import rasterio

        stored, folder = read_picture(path), result_folder()
        self.name, self.names, self.place = Path(path).stem, predictor.names, _placed(Path(path))
        scene, classes = folder / "scene.tif", folder / "classes.tif"
        height, width = stored.shape[:2]
        settings = {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "rgb"}
        with rasterio.open(scene, "w", height=height, width=width, **settings, **self.place) as out:
            out.write(np.moveaxis(stored, 2, 0))
            for band, name in enumerate(("red", "green", "blue"), 1):
                out.set_band_description(band, name)
        done = predict(scene, predictor, classes, batch_size=4, progress=False)
        with rasterio.open(classes) as raster:
            mask = raster.read(1)
        self.picture = shrunk(stored, _SHOWN)
        self.full = np.where(mask >= len(self.names), NODATA, mask).astype(np.uint8)
        self.hectares = done.hectares if self.place else None

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """The scene, and the map over it."""
        mask = _nearest(self.full, self.picture.shape[:2])
        return self.picture, overlay(self.picture, mask, palette(self.names), OPACITY)

    def legend(self) -> str:
        """Classes with colour, share, and area where the file has a place."""
        areas = self.hectares
        listed = [areas.get(name, 0.0) for name in self.names] if areas else None
        return legend(self.full, self.names, palette(self.names), listed)

    def files(self) -> tuple[str, str]:
        """The map as GeoTIFF, and its polygons as GeoJSON."""
        return written(self.full, self.names, palette(self.names), self.name, self.place)


def _placed(path: Path) -> dict[str, Any]:
    """Coordinate system and transform of a file, where it has them."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return {}
    with open_tiff(path) as raster:
        return {"crs": raster.crs, "transform": raster.transform} if raster.crs else {}


def legend(
    mask: np.ndarray,
    names: Sequence[str],
    colours: Sequence[tuple[int, ...]],
    hectares: Sequence[float] | None,
) -> str:
    """Classes with colour, share and area as a table, the largest first."""
    valid = mask < len(names)
    counts = np.bincount(mask[valid].astype(int), minlength=len(names))
    rows = []
    for number in np.argsort(-counts, kind="stable"):
        red, green, blue = colours[number]
        cells = (
            f"<th scope='row'><span class='swatch' style='background:rgb({red},{green},{blue})'>"
            f"</span>{html.escape(names[number])}</th>"
            f"<td class='number'>{counts[number] / max(1, valid.sum()):.1%}</td>"
        )
        if hectares is not None:
            cells += f"<td class='number'>{hectares[number]:,.2f}</td>"
        rows.append(f"<tr>{cells}</tr>")
    head = "<th scope='col'>Class</th><th scope='col' class='number'>Share</th>"
    if hectares is not None:
        head += "<th scope='col' class='number'>Hectares</th>"
    return (
        f"<table class='legend'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        "</table>"
    )


def _nearest(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A mask at another size, each cell that of its centre."""
    rows = ((np.arange(shape[0]) + 0.5) * mask.shape[0] / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * mask.shape[1] / shape[1]).astype(int)
    return mask[np.ix_(rows, columns)]
