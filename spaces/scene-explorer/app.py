"""Scene explorer: what scene is it, what looks like it, and what does the model see?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from rs_models.demos import explorer, models, page
from rs_models.demos.dense_scene import dense_features
from rs_models.demos.pictures import cards, pca_picture
from rs_models.demos.uploads import read_picture, shrunk
from rs_models.errors import UserError

HERE = Path(__file__).parent / "examples"
EXAMPLES = [str(HERE / f"{name}.jpg") for name in ("river", "residential", "harbor", "farmland")]
CLASSES = {"Built-in classes": "built-in", "My classes": "own", "Both": "both"}


@page.told
def explore(
    image: str, model: str, classes: str, own: explorer.OwnClasses
) -> tuple[dict[str, float], str, tuple[str, str] | None, str]:
    """Class probabilities, nearest images and a picture of the features."""
    picture = read_picture(image)
    data = explorer.data_name()
    shares = explorer.classify(model, picture, own, CLASSES[classes], data)
    near = explorer.neighbours(model, picture, data)
    best, share = max(shares.items(), key=lambda item: item[1])
    said = f"**{best}** with {share:.0%}, of {len(shares)} classes; "
    said += f"{sum(name == near[0][1] for _, name, _ in near)} of the {len(near)} nearest images "
    said += f"are {near[0][1]}."
    encoder = models.encoder(model)
    view = None
    if models.has_dense(encoder):
        seen, features = dense_features(encoder, picture)
        colours = pca_picture(np.moveaxis(features, 2, 0), max(seen.shape))
        view = page.kept(seen), page.kept(colours)
    else:
        said += " This model's feature map cannot be read, so there is no picture of it."
    gallery = [(thumb, f"{name}, cosine {value:.2f}") for thumb, name, value in near]
    return shares, cards(gallery, 110), view, said


@page.told
def add_class(
    name: str, files: list[str], model: str, own: explorer.OwnClasses
) -> tuple[explorer.OwnClasses, str, str, None, str]:
    """Learn a class of the user's from a handful of images."""
    if len(files or []) > explorer.MAX_OWN:
        raise UserError(
            f"{len(files)} images at once; {explorer.MAX_OWN} are the most a class has."
        )
    pictures = [shrunk(read_picture(file), 512) for file in files or []]
    own = explorer.add_class(own, model, name, pictures)
    listed = ", ".join(f"{name} ({len(x)})" for name, x in own.features.items())
    choice = "My classes" if len(own.features) > 1 else "Both"
    return own, f"Your classes: {listed}.", "", None, choice


def start_over() -> tuple[explorer.OwnClasses, str, str]:
    """Forget the user's classes."""
    return explorer.OwnClasses(), "No class of yours yet.", "Built-in classes"


def build() -> gr.Blocks:
    """The page."""
    names = models.choices()
    with page.blocks("Scene explorer") as demo:
        own = gr.State(explorer.OwnClasses())
        page.header(
            "Scene explorer",
            "Drop an aerial or satellite image: its scene class from twenty labelled images a "
            "class, the images that look most like it, and its features as colours. The model has "
            "learned without a single label.",
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = page.picture_input("Your image", value=EXAMPLES[0])
                model = gr.Dropdown(models.labelled(names), value=names[0], label="Model")
                classes = gr.Radio(list(CLASSES), value="Built-in classes", label="Tell apart")
                examples = gr.Examples(EXAMPLES, image, label="Examples")
                with gr.Accordion("Add a class of your own", open=False):
                    name = gr.Textbox(label="Name of the class", max_length=60)
                    files = gr.File(
                        label="A handful of images of it",
                        file_count="multiple",
                        file_types=["image", ".tif", ".tiff"],
                        height=140,
                    )
                    with gr.Row():
                        add = gr.Button("Add class")
                        forget = gr.Button("Start over")
                    listed = gr.Markdown("No class of yours yet.", elem_classes="said")
            with gr.Column(scale=3):
                said = gr.Markdown(elem_classes="said")
                label = gr.Label(label="Scene class", num_top_classes=5)
                gr.HTML("<h2 class='part'>The labelled images most like it</h2>")
                near = gr.HTML(min_height=150)
                view = gr.ImageSlider(
                    label="Slide: the image, and its features as colours",
                    interactive=False,
                    max_height=560,
                )
        given, shown = [image, model, classes, own], [label, near, view, said]
        slow: dict[str, Any] = {
            "inputs": given,
            "outputs": shown,
            "show_progress_on": label,
            "trigger_mode": "always_last",
        }
        page.runs(demo.load, explore, api_visibility="private", **slow)
        page.runs([model.input, classes.input], explore, api_name="explore", **slow)
        for done in (page.uploads(image), examples.load_input_event):
            page.runs(done.success, explore, api_visibility="private", **slow)
        page.runs(
            add.click,
            add_class,
            [name, files, model, own],
            [own, listed, name, files, classes],
            api_name="add_class",
            show_progress_on=listed,
        ).success(explore, given, shown, api_visibility="private", show_progress_on=label)
        page.runs(forget.click, start_over, None, [own, listed, classes], api_name="start_over")
    return demo


def warm() -> None:
    """Load the first model and its index before anybody asks."""
    try:
        explorer.index(models.choices()[0], explorer.data_name())
    except UserError as error:
        print(f"Not ready: {error}")


demo = build()

if __name__ == "__main__":
    warm()
    page.launch(demo)
