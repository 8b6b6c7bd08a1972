"""`rs-models windows`: scenes and vectors become a data set to fine-tune on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import UserError
from ..settings import Count, Options, Seed, Side

_EPILOG = """examples:
  rs-models windows scene.tif landuse.gpkg --classes kind --output outputs/windows
  rs-models windows scenes/ buildings.geojson --classes type --background ground \\
    --area labelled.geojson --output outputs/buildings
  rs-models windows scene.tif cars.gpkg --classes model --task detection --point-size 24 \\
    --output outputs/cars

GeoJSON and GeoParquet need nothing more; GeoPackage, FlatGeobuf and Shapefile need
pip install 'rs-models[geo]'. Exit codes: 0 done, 2 bad input."""


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models windows",
        description="Cut scenes into windows with masks or boxes, splits by place, and a card.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("scenes", help="GeoTIFF, or a folder of them")
    options.add_argument("labels", help="polygons, points or boxes")
    options.add_argument("--classes", required=True, help="property that names the class")
    options.add_argument("--output", required=True, help="folder to write")
    options.add_argument(
        "--task", choices=("segmentation", "detection"), default="segmentation", help="what to make"
    )
    options.add_argument("--size", type=Side, default=256, help="side of a window (default 256)")
    options.add_argument(
        "--block", type=Count, default=4, help="windows along a block of one split (default 4)"
    )
    options.add_argument("--background", help="class of pixels in no polygon (default: ignored)")
    options.add_argument("--area", help="polygons of what was labelled; nothing is learned outside")
    options.add_argument("--point-size", type=Count, help="side in pixels that a point stands for")
    options.add_argument("--bands", help="numbers of the bands to keep, 1,2,3 by default")
    options.add_argument("--strict", action="store_true", help="fail when anything is amiss")
    options.add_argument("--seed", type=Seed, default=0, help="of the split (default 0)")
    return options


def main(argv: Sequence[str]) -> int:
    """Cuts from the command line; the exit code.

    Raises:
        UserError: Bad input.
    """
    options = parser().parse_args(argv)
    from ..data.windows import WindowSettings, make_windows

    try:
        bands = tuple(int(part) for part in options.bands.split(",")) if options.bands else None
    except ValueError:
        raise UserError(f"--bands {options.bands} should be numbers with commas: 1,2,3.") from None
    settings = WindowSettings(
        field=options.classes,
        task=options.task,
        size=options.size,
        block=options.block,
        background=options.background,
        point_size=options.point_size,
        bands=bands,
        seed=options.seed,
    )
    done = make_windows(
        options.scenes,
        options.labels,
        options.output,
        settings,
        area=options.area,
        strict=options.strict,
    )
    print(f"{done.output}: {', '.join(f'{split} {count}' for split, count in done.rows.items())}")
    unit = "boxes" if options.task == "detection" else "pixels"
    for split, counts in done.counts.items():
        shown = ", ".join(f"{name} {counts[name]:,}" for name in done.classes)
        print(f"  {split} ({unit}): {shown}")
    for reason, count in done.left_out.items():
        print(f"  left out: {count} {reason}")
    classes = f" --data.classes '[{', '.join(done.classes)}]'" if unit == "pixels" else ""
    print(
        f"Next: rs-models finetune --task {options.task} --model MODEL --data.name {done.output}"
        f"{classes}"
    )
    return 0
