"""Compare models: few labels, retrieval and features side by side, and the measured results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from rs_models.demos import compare, explorer, models, page
from rs_models.demos.dense_scene import dense_features
from rs_models.demos.pictures import cards, pca_picture, svg
from rs_models.demos.uploads import read_picture
from rs_models.errors import UserError

HERE = Path(__file__).parent / "examples"
EXAMPLES = [str(HERE / f"{name}.jpg") for name in ("river", "residential", "harbor", "farmland")]


@page.told
def side_by_side(
    names: list[str],
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[str, str, str]:
    """What the results say, few-shot curves, and a table with retrieval."""
    _check(names)
    measured = []
    for number, name in enumerate(names):
        progress(number / len(names), f"Looking through {name.rpartition('/')[2]}")
        measured += compare.measure(name, explorer.data_name())
    first = max(measured, key=lambda result: result.mean).model
    curve = svg(compare.few_labels(first, measured))
    return compare.verdict(measured), curve, compare.board(measured)


@page.told
def features(image: str, names: list[str]) -> str:
    """The features of one image under each model, beside the image."""
    _check(names)
    picture, shown = read_picture(image), []
    for name in names:
        encoder = models.encoder(name)
        if models.has_dense(encoder):
            seen, found = dense_features(encoder, picture)
            view = pca_picture(np.moveaxis(found, 2, 0), max(seen.shape))
            shown = shown or [(seen, "The image")]
            shown.append((view, f"{encoder.name}: three principal components as colours"))
    if not shown:
        raise UserError("None of these models has a feature map that can be read.")
    return cards(shown, 260)


def _check(names: list[str]) -> None:
    if not names:
        raise UserError("Choose two models or more.")
    if len(names) > 6:
        raise UserError(f"Six models at a time are the most, not {len(names)}.")


def build() -> gr.Blocks:
    """The page."""
    names, boards = models.choices(), list(compare.measured())
    with page.blocks("Compare models") as demo:
        page.header(
            "Compare",
            "Models of the zoo, or any backbone of the Hub by its id, side by side on the same "
            "labelled images: accuracy with few labels, retrieval, and what their features see.",
        )
        chosen = gr.Dropdown(
            models.labelled(names),
            value=names[:2],
            multiselect=True,
            allow_custom_value=True,
            label="Models (a Hub id or timm name may be typed)",
        )
        slow: dict[str, Any] = {"trigger_mode": "always_last"}
        with gr.Tab("Few labels"):
            said = gr.Markdown(elem_classes="said", min_height=40)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    curve = gr.HTML(min_height=260)
                with gr.Column(scale=3, min_width=300):
                    table = gr.HTML(js_on_load=compare.SORTING, apply_default_css=False)
            outputs = [said, curve, table]
            page.runs(demo.load, side_by_side, chosen, outputs, api_visibility="private", **slow)
            page.runs(chosen.input, side_by_side, chosen, outputs, api_name="compare", **slow)
        with gr.Tab("Features") as tab:
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    image = page.picture_input("Your image", value=EXAMPLES[0])
                    examples = gr.Examples(EXAMPLES, image, label="Examples")
                with gr.Column(scale=3, min_width=300):
                    gallery = gr.HTML(min_height=200)
            look = {"inputs": [image, chosen], "outputs": gallery, **slow}
            page.runs(chosen.input, features, api_name="features", **look)
            for done in (tab.select, page.uploads(image).success):
                page.runs(done, features, api_visibility="private", **look)
            page.runs(examples.load_input_event.success, features, api_visibility="private", **look)
        with gr.Tab("Leaderboard"):
            data = gr.Dropdown(boards, value=next(iter(boards), None), label="Data set")
            board = gr.HTML(
                compare.leaderboard(boards[0]) if boards else compare.board([]),
                js_on_load=compare.SORTING,
                apply_default_css=False,
            )
            gr.Markdown(
                "As in the models' cards, in %. Small print: the deviation over draws of labels, "
                "or the 95 % interval over test images. Grey rows cost nothing, or learned from "
                "labels. Click a column to sort.",
                elem_classes="quiet",
            )
            page.runs(data.input, compare.leaderboard, data, board, api_name="leaderboard")
    return demo


def warm() -> None:
    """Measure the models that are chosen at first, before anybody asks."""
    for name in models.choices()[:2]:
        try:
            compare.measure(name, explorer.data_name())
        except UserError as error:
            print(f"Not ready: {error}")


demo = build()

if __name__ == "__main__":
    warm()
    page.launch(demo)
