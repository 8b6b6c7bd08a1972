"""Segment a scene: click points or draw areas of each class, and the map of the scene follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from rs_models.demos import chips, models, page, scene_marks, scene_sheet, segmenters
from rs_models.demos.dense_scene import DenseScene, looked_at
from rs_models.demos.scene_work import Finished, Work
from rs_models.errors import UserError
from rs_models.files import sha256

HERE = Path(__file__).parent / "examples"
EXAMPLES = [str(HERE / name) for name in ("patchwork.png", "mosaic_utm32.tif")]
# Of each example the points that it opens with: file name -> class -> [x, y] from 0 to 1.
POINTS = json.loads((HERE / "points.json").read_text())
# Gradio's download button takes its file before it is clicked; ours is clicked when there is one.
_DOWNLOAD = "() => setTimeout(() => document.querySelector('#ready').click(), 150)"


@lru_cache(maxsize=1)
def known() -> dict[str, str]:
    """Content of each example -> its name, so that an upload of it is the example too."""
    return {sha256(path): Path(path).name for path in EXAMPLES}


@lru_cache(maxsize=4)
def example(model: str, name: str) -> DenseScene:
    """An example under a model, looked at once for all."""
    return looked_at(model, str(HERE / name))


def opened(model: str, path: str) -> Work:
    """A scene to set points on; an example has some."""
    name = known().get(sha256(path)) if Path(path).is_file() else None
    if name is None:
        return Work(looked_at(model, path), ["class 1", "class 2"])
    marks = [scene_marks.point(x, y, kind) for kind, many in POINTS[name].items() for x, y in many]
    return Work(example(model, name), list(POINTS[name]), marks)


def shown_of(work: Work) -> tuple:
    """The map, the legend, a word on both and the downloads, after each point."""
    mask = work.mask()
    if mask is None:
        said = "Choose a class and mark some places of it, then of another: the map follows."
        return _slider(work.pictures(None)), "", said, *_downloads(False)
    height, width = work.scene.size
    said = f"{width} x {height} pixels, {work.counted} of {len(work.used)} classes."
    if work.scene.ground is None:
        said += " The file has no place on the ground, so areas are shares."
    return _slider(work.pictures(mask)), work.legend(mask), said, *_downloads(True)


@page.told
def segment(
    file: str | None,
    model: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple:
    """Looks at a scene; a fine-tuned model maps it, a backbone waits for points."""
    path = file or EXAMPLES[0]
    progress(0.1, "Loading the model")
    predictor = segmenters.segmenter(model)
    progress(0.4, "Looking at the scene")
    if predictor is None:
        work = opened(model, path)
        progress(0.9, "Drawing the map")
        return work, gr.HTML(value=scene_sheet.sheet_value(work), visible=True), *shown_of(work)
    done = Finished(path, predictor)
    said = f"The classes of {predictor.name}, which was trained on labels: no points are needed."
    both = _slider(done.pictures())
    return done, gr.HTML(visible=False), both, done.legend(), said, *_downloads(True)


@page.told
def point(work: Any, event: gr.EventData) -> tuple:
    """Sets a point; the sheet itself has drawn it already."""
    work = _present(work)
    x, y, name = (getattr(event, key, None) for key in ("x", "y", "name"))
    work.add([scene_marks.point(x, y, name)], _classes(event))
    return work, *shown_of(work)


@page.told
def area(work: Any, event: gr.EventData) -> tuple:
    """Sets an area; the sheet itself has drawn it already."""
    work = _present(work)
    corners, name = (getattr(event, key, None) for key in ("corners", "name"))
    work.add([scene_marks.area(corners, name)], _classes(event))
    return work, *shown_of(work)


@page.told
def polygons(file: str | None, work: Any) -> tuple:
    """Sets the areas and points of a file that lie on the scene."""
    work = _present(work)
    if file is None:
        raise UserError("Choose a file with polygons first.")
    work.add_file(file)
    return work, scene_sheet.sheet_value(work), *shown_of(work)


@page.told
def like(work: Any, event: gr.EventData) -> tuple:
    """Shows how like a point every place of the scene is."""
    pictures = _present(work).like(getattr(event, "x", None), getattr(event, "y", None))
    return _slider(pictures), "Warm places look like the point to the model, grey ones do not."


def doing(name: str) -> Callable[[Any, gr.EventData], tuple]:
    """A function of the page that takes marks away."""

    def act(work: Any, event: gr.EventData) -> tuple:
        work = _present(work)
        work.name_classes(_classes(event))
        getattr(work, name)()
        return work, scene_sheet.sheet_value(work), *shown_of(work)

    return page.told(act)


def file_of(number: int) -> Callable[[Any], str]:
    """A function of the page that makes a file to take home."""

    def made(work: Any) -> str:
        return _present(work, (Work, Finished)).files()[number]

    return page.told(made)


def _slider(pictures: tuple[np.ndarray, np.ndarray]) -> tuple[str, str]:
    return page.kept(pictures[0]), page.kept(pictures[1])


def _downloads(some: bool) -> tuple[Any, Any]:
    return gr.Button(visible=some), gr.Button(visible=some)


def _classes(event: gr.EventData) -> list[Any]:
    classes = getattr(event, "classes", None)
    return classes if isinstance(classes, list) else []


def _present(work: Any, kinds: Any = Work) -> Any:
    if not isinstance(work, kinds):
        raise UserError("Your scene is not kept any longer: choose it again.")
    return work


def build() -> gr.Blocks:
    """The page."""
    names = models.choices()
    with page.blocks("Segment a scene") as demo:
        work = gr.State(None, time_to_live=1800)
        page.header(
            "Segment a scene",
            "Click a few points of each class, or draw areas, and a linear classifier on the "
            "features of a frozen backbone maps the rest at once: five clicks a class are often "
            "enough. Or ask of one point: what else looks like this?",
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                sheet = gr.HTML(
                    html_template="<div></div>",
                    css_template=chips.STYLE + scene_sheet.STYLE,
                    js_on_load=scene_sheet.SCRIPT,
                    apply_default_css=False,
                    elem_id="sheet",
                    **scene_sheet.sheet_props(),
                )
                labels = gr.UploadButton(
                    "Add polygons from a file",
                    size="sm",
                    file_types=list(scene_marks.FILES),
                    elem_id="labels",
                )
            with gr.Column(scale=3, min_width=300):
                slider = gr.ImageSlider(
                    label="Slide: the scene, and its map",
                    interactive=False,
                    elem_id="map",
                    max_height=620,
                )
                said = gr.Markdown(elem_classes="said")
                table = gr.HTML(label="Legend")
                with gr.Row():
                    tiff = gr.Button("Map, GeoTIFF", size="sm", visible=False)
                    geojson = gr.Button("Polygons, GeoJSON", size="sm", visible=False)
                ready = gr.DownloadButton("Ready", visible="hidden", elem_id="ready")
        with gr.Row():
            file = gr.File(
                label="Your image or GeoTIFF",
                file_types=["image", ".tif", ".tiff"],
                height=150,
            )
            with gr.Column():
                model = gr.Dropdown(models.labelled(names), value=names[0], label="Model")
                examples = gr.Examples(
                    EXAMPLES,
                    file,
                    label="Examples",
                    example_labels=["Six real tiles", "A drawn scene with a place"],
                )
        after = [slider, table, said, tiff, geojson]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        loads = {"inputs": [file, model], "outputs": [work, sheet, *after]}
        slow: dict[str, Any] = {**loads, "show_progress_on": slider}
        page.runs(demo.load, segment, api_visibility="private", **slow)
        page.runs(file.upload, segment, api_name="segment", **slow)
        page.runs(file.clear, segment, api_visibility="private", **slow)
        page.runs(model.input, segment, api_visibility="private", **slow)
        page.runs(examples.load_input_event.success, segment, api_visibility="private", **slow)
        page.runs(sheet.point, point, work, [work, *after], trigger_mode="multiple", **quiet)
        page.runs(sheet.area, area, work, [work, *after], trigger_mode="multiple", **quiet)
        page.runs(
            labels.upload,
            polygons,
            [labels, work],
            [work, sheet, *after],
            api_name="polygons",
            show_progress="hidden",
        )
        page.runs(sheet.like, like, work, [slider, said], **quiet)
        for name in ("undo", "clear"):
            page.runs(getattr(sheet, name), doing(name), work, [work, sheet, *after], **quiet)
        for number, button in enumerate((tiff, geojson)):
            page.runs(
                button.click,
                file_of(number),
                work,
                ready,
                api_name=("geotiff", "geojson")[number],
                show_progress="hidden",
            ).success(None, None, None, js=_DOWNLOAD, api_visibility="private")
    return demo


def warm() -> None:
    """Look at the first example before anybody asks."""
    try:
        opened(models.choices()[0], EXAMPLES[0]).mask()
    except UserError as error:
        print(f"Not ready: {error}")


demo = build()

if __name__ == "__main__":
    warm()
    page.launch(demo)
