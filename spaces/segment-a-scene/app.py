"""Segment a scene: a map of classes over an image or GeoTIFF, with areas and files to keep."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import gradio as gr
import numpy as np

from rs_models.demos import landcover, models, page
from rs_models.demos.pictures import overlay, palette
from rs_models.demos.uploads import open_tiff, read_picture, shrunk
from rs_models.errors import UserError

EXAMPLES = sorted(str(path) for path in (Path(__file__).parent / "examples").glob("*.*"))
NODATA = 255
SHOWN = 1400  # pixels of the longer side on the page; files keep the image's own size


@page.told
def segment(
    file: str,
    model: str,
    opacity: float,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[str | None, str, str, str, str, dict]:
    """Map of classes, legend with areas, and the files."""
    import rasterio

    from rs_models.predict import predict

    picture = read_picture(file)
    progress(0.1, "Loading the model")
    predictor = landcover.segmenter(model)
    progress(0.3, "Reading the scene")
    folder = page.result_folder()
    written = folder / f"{Path(file).stem}-classes.tif"
    scratch = page.result_folder()
    scene = _scene(Path(file), picture, scratch)
    try:
        predict(scene, predictor, written, polygons=True, batch_size=4, progress=False)
    except UserError as error:
        shutil.rmtree(folder)
        # Where the server keeps the file is nobody's business.
        raise UserError(str(error).replace(f"{scene.parent}/", "")) from error
    finally:
        shutil.rmtree(scratch)
    with rasterio.open(written) as raster:
        mask, has_crs = raster.read(1), raster.crs is not None
    polygons = written.with_suffix(".geojson")
    table = legend(mask, predictor.names, _areas(polygons) if has_crs else None)
    mask = np.where(mask >= len(predictor.names), NODATA, mask).astype(np.uint8)
    small = shrunk(picture, SHOWN)
    rows = np.linspace(0, len(mask) - 1, len(small)).round().astype(int)
    columns = np.linspace(0, mask.shape[1] - 1, small.shape[1]).round().astype(int)
    state = {"picture": small, "mask": mask[np.ix_(rows, columns)], "names": predictor.names}
    counts = np.bincount(mask[mask != NODATA], minlength=len(predictor.names))
    most = predictor.names[int(counts.argmax())]
    said = f"{picture.shape[1]} x {picture.shape[0]} pixels; most of it is **{most}**."
    if not has_crs:
        said += " The file has no coordinate system, so areas are shares of the image."
    return blend(state, opacity), table, said, str(written), str(polygons), state


def blend(state: dict | None, opacity: float) -> str | None:
    """The map over its image."""
    if not state:
        return None
    colours = palette(state["names"])
    return page.kept(overlay(state["picture"], state["mask"], colours, opacity / 100))


def legend(mask: np.ndarray, names: list[str], hectares: dict[str, float] | None) -> str:
    """Classes with colour, share and area as a table."""
    valid = mask < len(names)
    counts = np.bincount(mask[valid].astype(int), minlength=len(names))
    rows = []
    for number in np.argsort(-counts, kind="stable"):
        if not counts[number]:
            continue
        red, green, blue = palette(names)[number]
        name = html.escape(names[number])
        cells = f"<th scope='row'><span class='swatch' style='background:rgb({red},{green},{blue})'"
        cells += f"></span>{name}</th>"
        cells += f"<td class='number'>{counts[number] / max(1, valid.sum()):.1%}</td>"
        if hectares is not None:
            cells += f"<td class='number'>{hectares.get(names[number], 0.0):,.2f}</td>"
        rows.append(f"<tr>{cells}</tr>")
    head = "<th scope='col'>Class</th><th scope='col' class='number'>Share</th>"
    if hectares is not None:
        head += "<th scope='col' class='number'>Hectares</th>"
    return (
        "<table class='legend'><caption>Classes of the map</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _areas(polygons: Path) -> dict[str, float]:
    """Hectares a class, from the polygons' equal-area square metres."""
    areas: dict[str, float] = {}
    for feature in json.loads(polygons.read_text())["features"]:
        known = feature["properties"]
        areas[known["class"]] = areas.get(known["class"], 0.0) + known["area_m2"] / 10_000
    return areas


def _scene(file: Path, picture: np.ndarray, folder: Path) -> Path:
    """The uploaded GeoTIFF itself, or the picture as a TIFF."""
    import rasterio
    from rasterio.transform import Affine

    from rs_models.data.columns import raster_bands

    place: dict = {"crs": None, "transform": Affine.identity()}
    if file.suffix.lower() in (".tif", ".tiff"):
        with open_tiff(file) as raster:
            if raster_bands(raster) is not None or raster.count == 3:
                return file
            place = {"crs": raster.crs, "transform": raster.transform}
    path = folder / f"{file.stem}-rgb.tif"
    height, width = picture.shape[:2]
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", **place
    ) as out:
        out.write(np.moveaxis(picture, 2, 0))
        for band, name in enumerate(("red", "green", "blue"), 1):
            out.set_band_description(band, name)
    return path


def build() -> gr.Blocks:
    """The page."""
    names = models.choices()
    with page.blocks("Segment a scene") as demo:
        state = gr.State(None, time_to_live=600)
        gr.Markdown(
            "# Segment a scene\nUpload an image or GeoTIFF of up to 4,000 pixels a side: a map of "
            "classes with the area of each, to keep as GeoTIFF and GeoJSON. A fine-tuned network "
            "gives its own classes. A backbone gets a linear head that has learned land cover "
            "from synthetic scenes in seconds: it shows what the features hold, and is no product."
        )
        with gr.Row():
            with gr.Column(scale=2):
                file = gr.File(
                    label="Image or GeoTIFF",
                    file_types=["image", ".tif", ".tiff"],
                    height=150,
                )
                model = gr.Dropdown(models.labelled(names), value=names[0], label="Model")
                opacity = gr.Slider(0, 100, 55, step=5, label="Opacity of the map in %")
                run = gr.Button("Segment", variant="primary")
                gr.Examples(EXAMPLES, file, label="Examples")
            with gr.Column(scale=3):
                said = gr.Markdown("Choose a file to begin.", elem_classes="said")
                picture = gr.Image(
                    label="Map over the image",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                )
                table = gr.HTML(label="Legend")
                with gr.Row():
                    tiff = gr.DownloadButton("Download GeoTIFF")
                    geojson = gr.DownloadButton("Download GeoJSON")
        run.click(
            segment,
            [file, model, opacity],
            [picture, table, said, tiff, geojson, state],
            api_name="segment",
        )
        opacity.release(blend, [state, opacity], picture, api_name="blend", show_progress="hidden")
    return demo


def warm() -> None:
    """Load the first model, and fit its head, before anybody asks."""
    try:
        landcover.segmenter(models.choices()[0])
    except UserError as error:
        print(f"Not ready: {error}")


demo = build()

if __name__ == "__main__":
    warm()
    page.launch(demo)
