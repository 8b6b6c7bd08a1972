"""`rs-models predict`: one scene or many, shared among processes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import complete
from ..settings import (
    Count,
    Finite,
    NotNegative,
    Number,
    Options,
    Positive,
    Share,
    Side,
    one_line,
)

_EPILOG = """examples:
  rs-models predict scene.tif --model outputs/finetune/model --output map.tif --polygons
  rs-models predict scenes/ --model outputs/finetune/model --output maps/
  rs-models predict scene.tif --model rs/rsisc-resnet18 --output features.tif
  rs-models predict scene.tif --model rs/rsisc-resnet18 --head labels.gpkg --classes kind \
    --output map.tif
  rs-models predict scene.tif --model DIR --bands red,green,blue,nir --output map.tif
  accelerate launch --num_processes 4 -m rs_models.cli predict scenes/ --model DIR --output maps/

What the model is stands in its config: a segmentation or classification model gives a map of
classes (or --kind probabilities), a detector boxes as GeoJSON, a backbone its embeddings, or with
--head a map of classes that it learns from a few polygons or points: where the map is wrong, draw
more of them and run the same command again. Started again after a stop, it goes on where it was.
Exit codes: 0 done, 1 some scenes failed, or network or server, 2 bad input."""
_VALUES = ("sensor", "stretch", "scale", "offset")  # how a scene's bands and values are read
_SCENES = {".tif", ".tiff", ".vrt", ".jp2", ".img"}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    options = Options(
        prog="rs-models predict",
        description="Apply a model to georeferenced images of any size.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("scenes", nargs="+", help="GeoTIFF, VRT, ..., or a folder of them")
    options.add_argument("--model", required=True, help="folder or Hub id")
    options.add_argument(
        "--output", required=True, help=".tif (boxes: .geojson, .gpkg, ...), or a folder"
    )
    options.add_argument(
        "--head", metavar="LABELS", help="polygons or points that a backbone learns classes from"
    )
    options.add_argument(
        "--classes", metavar="FIELD", help="with --head: property that names the class (class)"
    )
    options.add_argument(
        "--point-size", type=Count, help="with --head: side in pixels that a point stands for (1)"
    )
    options.add_argument("--kind", choices=("classes", "probabilities", "embeddings", "boxes"))
    options.add_argument("--bands", help="names of the file's bands in order, if it has none")
    options.add_argument("--sensor", help="whose band numbers they are: sentinel-2, landsat-8, ...")
    options.add_argument(
        "--stretch", metavar="MIN,MAX|percentile", help="values that become black and white (8 bit)"
    )
    options.add_argument("--scale", type=Positive, help="reflectance = stored * SCALE + OFFSET")
    options.add_argument("--offset", type=Finite, help="reflectance of a stored 0")
    options.add_argument("--tile", type=Side, help="side in pixels (default: 512 or training size)")
    options.add_argument("--overlap", type=Number, help="in pixels (default: a quarter of a tile)")
    options.add_argument("--batch-size", type=Count, default=8)
    options.add_argument("--threshold", type=Share, default=0.5, help="least score of a box")
    options.add_argument(
        "--polygons",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="also polygons of a class map: GeoJSON beside it, or FILE (or its suffix alone) as "
        ".gpkg, .fgb, .parquet, .shp",
    )
    options.add_argument(
        "--min-area", type=NotNegative, default=0.0, help="of polygons, square metres"
    )
    options.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    options.add_argument("--precision", choices=("no", "bf16"), default="no")
    options.add_argument("--restart", action="store_true", help="forget what is unfinished")
    options.add_argument("--skip-corrupt", action="store_true", help="corrupt blocks become nodata")
    options.add_argument("--json", action="store_true", help="print the outcome as JSON")
    return options


def main(argv: Sequence[str]) -> int:
    """Predicts from the command line; the exit code.

    Raises:
        UserError: As `predict`, for a single scene; of many, each failure is told and counted.
    """
    options = parser().parse_args(argv)
    from accelerate.utils import gather_object

    from ..evaluation.processes import processes
    from ..predict.model import load_predictor
    from ..predict.run import predict

    scenes = _scenes(options.scenes)
    if isinstance(options.polygons, str) and len(scenes) > 1 and "." in options.polygons[1:]:
        raise UserError(
            f"--polygons {options.polygons} is one file, and there are {len(scenes)} scenes: name "
            "its suffix alone."
        )
    if options.head is None and (options.classes or options.point_size):
        raise UserError("--classes and --point-size are of --head: name the labels with it.")
    state = processes()
    with state.main_process_first():
        predictor = load_predictor(
            options.model,
            task="embedding" if options.kind == "embeddings" or options.head else None,
            precision=options.precision,
        )
    pairs = _outputs(scenes, options.output, boxes=predictor.task == "detection")
    settings = _settings(options, str(state.device) if state.num_processes > 1 else None)
    head = _head(options, predictor, pairs, settings) if options.head else None
    predictor = head.predictor if head is not None else predictor
    if head is not None and state.is_main_process and not options.json:
        print(head.text())
    predictions: list[dict[str, Any]] = []
    failed: list[str] = []
    for number, (scene, output) in enumerate(pairs):
        if number % state.num_processes != state.process_index:
            continue
        try:
            done = predict(scene, predictor, output, progress=sys.stderr.isatty(), **settings)
        except UserError as error:
            if len(pairs) == 1:
                raise
            print(f"error: {one_line(error)}", file=sys.stderr)
            failed.append(str(scene))
            continue
        predictions.append(dataclasses.asdict(done))
    if state.num_processes > 1:
        predictions, failed = gather_object(predictions), gather_object(failed)
    if state.is_main_process:
        if options.json:
            told = {"made": predictions, "failed": failed}
            if head is not None:
                told["head"] = head.record()
            print(json.dumps(told, indent=2))
        else:
            for outcome in predictions:
                print(_told(outcome))
            if predictions:
                print(_next(predictions[-1], options))
            if failed:
                print(f"{len(failed)} of {len(pairs)} scenes failed: {', '.join(failed)}")
    return 1 if failed else 0


def _settings(options: argparse.Namespace, device: str | None) -> dict[str, Any]:
    """Arguments of `predict` by their names."""
    names = ("bands", "tile", "overlap", "batch_size", "threshold", "polygons", "min_area", "kind")
    others = ("skip_corrupt", *_VALUES)
    settings: dict[str, Any] = {name: getattr(options, name) for name in (*names, *others)}
    return settings | {"resume": not options.restart, "device": options.device or device}


def _head(
    options: argparse.Namespace,
    embedder: Any,
    pairs: Sequence[tuple[Path, Path]],
    settings: dict[str, Any],
) -> Any:
    """What the labels say, learned on the backbone's features."""
    from ..predict.head import fit_head
    from ..predict.run import polygons_place, same_file

    if options.kind in ("embeddings", "boxes"):
        raise UserError(
            f"--head learns classes, and --kind is {options.kind}: leave one of them out."
        )
    for _, output in pairs if options.polygons else ():
        if same_file(file := polygons_place(options.polygons, output), options.head):
            raise UserError(
                f"The polygons {file} would take the place of the labels that --head learns from: "
                "name another file for them."
            )
    scenes = [scene for scene, _ in pairs]
    return fit_head(
        embedder,
        scenes,
        options.head,
        field=options.classes or "class",
        point_size=1 if options.point_size is None else options.point_size,
        tile=options.tile,
        overlap=options.overlap,
        device=settings["device"],
        settings={name: settings[name] for name in ("bands", *_VALUES)},
    )


def _scenes(given: Sequence[str]) -> list[Path]:
    scenes: list[Path] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in complete(path, "*") if p.suffix.lower() in _SCENES]
            if not inside:
                raise UserError(f"The folder {path} holds no scene ({', '.join(sorted(_SCENES))}).")
            scenes += inside
        else:
            scenes.append(path)
    return scenes


def _outputs(scenes: Sequence[Path], output: str, *, boxes: bool) -> list[tuple[Path, Path]]:
    """Where each scene's result goes."""
    from ..predict.run import same_file

    folder, end = Path(output), ".geojson" if boxes else ".tif"
    if len(scenes) == 1 and not os.path.isdir(folder) and folder.suffix:
        return [(scenes[0], folder)]
    if len(scenes) == 1 and folder.suffix.lower() in (".tif", ".tiff"):
        raise UserError(f"--output {output} is a folder and is named as a file: name another.")
    if os.path.isfile(folder) or folder.suffix.lower() in (".tif", ".tiff", ".geojson", ".json"):
        raise UserError(f"--output {output} is a file, and there are {len(scenes)} scenes.")
    pairs = [(scene, folder / f"{scene.stem}{end}") for scene in scenes]
    taken: dict[Path, Path] = {}
    for scene, path in pairs:
        if path in taken:
            raise UserError(f"{scene} and {taken[path]} would both become {path}: rename one.")
        for other in scenes:
            if same_file(path, other):
                raise UserError(
                    f"{other} would be overwritten by the result of {scene}: choose another output."
                )
        taken[path] = scene
    return pairs


def _told(done: dict[str, Any]) -> str:
    extra = ""
    if done["boxes"] is not None:
        extra += f", {done['boxes']} boxes"
    if done["polygons"] is not None:
        extra += f", {done['polygons']} polygons"
    if done["corrupt_blocks"]:
        extra += f", {done['corrupt_blocks']} corrupt blocks left out"
    took = f"{done['tiles']} tiles in {done['seconds']:.1f} s"
    lines = [f"{done['output']}: {done['kind']} of {done['scene']}, {took}{extra}"]
    lines += [f"  note: {note}" for note in done["notes"]]
    ground = done["hectares"] or {}
    for name, size in sorted(ground.items(), key=lambda item: -item[1]):
        share = size / sum(ground.values())
        lines.append(f"  {name:24} {size:14,.2f} ha {share:7.1%}")
    return "\n".join(lines)


def _next(done: dict[str, Any], options: argparse.Namespace) -> str:
    """The command, or program, that one goes on with."""
    if options.head:
        return (
            f"Next: look at it with `qgis {done['scene']} {done['output']} {options.head}`, draw "
            "areas where it is wrong, and run the same command again."
        )
    model = options.model
    if done["kind"] == "classes" and done["polygons"] is None:
        return (
            f"Next: rs-models predict {done['scene']} --model {model} --output {done['output']} "
            "--polygons"
        )
    shown = " ".join(filter(None, (done["scene"], done["output"], done["polygons_file"])))
    return f"Next: look at it, for example with `qgis {shown}`"
