"""What one user does with a scene: marks of classes, the map that follows, files to keep."""

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
from .scene_marks import MAX_CORNERS, Mark, cells, from_file, place
from .uploads import open_tiff, read_picture, shrunk

NODATA = 255
MAX_MARKS = 300
"""Points and areas that a user may set."""
OPACITY = 0.62
_TOO_MANY = f"Name each class once, and {MAX_CLASSES} at most."
_SHOWN = 1024  # pixels of the longer side of a finished map as it is shown


class Work:
    """Marks on a scene, and the map that they make.

    Args:
        scene: With features.
        classes: Names of classes to begin with.
        marks: Points and areas to begin with.

    Attributes:
        scene: The scene.
        classes: Names of the classes, in the order of their keys.
    """

    def __init__(
        self, scene: DenseScene, classes: Sequence[str] = (), marks: Sequence[Mark] = ()
    ) -> None:
        """Holds its parts."""
        self.scene = scene
        self.classes = list(classes)
        self._steps = [[mark] for mark in marks]  # what one undo takes back
        self._marked: np.ndarray | None = None

    @property
    def marks(self) -> list[Mark]:
        """Points and areas, in the order in which they were set."""
        return [mark for step in self._steps for mark in step]

    def add(self, marks: Sequence[Mark], classes: Sequence[str]) -> None:
        """Sets points or areas, which one undo takes back together.

        Args:
            marks: Points and areas, each of a class that is named.
            classes: Names of all classes.

        Raises:
            UserError: A class that is none, or too many marks or corners.
        """
        self.name_classes(classes)
        if any(mark.name not in self.classes for mark in marks):
            raise UserError("That class is not among yours: add it first.")
        every = [*self.marks, *marks]
        if len(every) > MAX_MARKS:
            raise UserError(f"{MAX_MARKS} points and areas are the most: take some back.")
        if sum(mark.corners for mark in every) > MAX_CORNERS:
            raise UserError(
                f"All areas together have more than {MAX_CORNERS:,} corners: simplify them."
            )
        self._steps.append(list(marks))
        self._marked = None

    def add_file(self, path: str) -> int:
        """Sets what a file of polygons has on the scene, and gives the number of marks.

        Raises:
            UserError: See `scene_marks.from_file`; or more classes or marks than a scene takes.
        """
        marks = from_file(path, self.scene)
        self.add(marks, list(dict.fromkeys([*self.classes, *(mark.name for mark in marks)])))
        return len(marks)

    def name_classes(self, classes: Sequence[str]) -> None:
        """Takes the names of the classes as the page has them.

        Raises:
            UserError: Names that are none, double, or too many.
        """
        if len(classes) > 2 * MAX_CLASSES:  # before each is looked at
            raise UserError(_TOO_MANY)
        names = [checked_name(name) for name in classes]
        names += [mark.name for mark in self.marks if mark.name not in names]
        names = list(dict.fromkeys(names))
        if len(names) > MAX_CLASSES:
            raise UserError(_TOO_MANY)
        self.classes = names

    def undo(self) -> None:
        """Takes away what was set last."""
        del self._steps[-1:]
        self._marked = None

    def clear(self) -> None:
        """Takes all marks away."""
        self._steps, self._marked = [], None

    @property
    def marked(self) -> np.ndarray:
        """The mark of every cell of the scene, -1 for none."""
        if self._marked is None:
            self._marked = cells(self.marks, self.scene.features.shape[:2])
        return self._marked

    @property
    def used(self) -> list[str]:
        """Classes that have cells."""
        marks = self.marks
        there = {marks[number].name for number in np.unique(self.marked) if number >= 0}
        return [name for name in self.classes if name in there]

    @property
    def counted(self) -> str:
        """How many points and areas there are, in words."""
        areas = sum(mark.is_area for mark in self.marks)
        points = len(self.marks) - areas
        parts = [f"{points} point{'s' * (points != 1)}"] if points or not areas else []
        return " and ".join(parts + [f"{areas} area{'s' * (areas != 1)}"] * bool(areas))

    @property
    def colours(self) -> list[tuple[int, ...]]:
        """Colours of `used`, each that of its key."""
        every = dict(zip(self.classes, palette(self.classes), strict=True))
        return [every[name] for name in self.used]

    def mask(self, size: tuple[int, int] | None = None) -> np.ndarray | None:
        """Class numbers (H, W) of `used`; None while fewer than two classes have marks.

        Args:
            size: Height and width; None is the picture's.
        """
        names = self.used
        if len(names) < 2:
            return None
        # A class whose marks all lie under others has no cells, so its number is never asked for.
        numbers = {name: number for number, name in enumerate(names)}
        classes = np.array([numbers.get(mark.name, 0) for mark in self.marks])
        scores = self.scene.scores(self.marked, classes)
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
            UserError: Marks of fewer than two classes.
        """
        mask = self.mask(self.scene.size)
        if mask is None:
            raise UserError("Mark two classes first: then there is a map.")
        return written(mask, self.used, self.colours, self.scene.name, self.scene.place)


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
