"""Compare models: few labels, retrieval and features side by side, and the measured results."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from rs_models.demos import compare, explorer, models, page
from rs_models.demos.pictures import pca_picture
from rs_models.demos.uploads import read_picture
from rs_models.errors import UserError

EXAMPLES = sorted(str(path) for path in (Path(__file__).parent / "examples").glob("*.jpg"))


@page.told
def side_by_side(names: list[str]) -> tuple:
    """Few-shot curves, a table of retrieval, and what was measured."""
    _check(names)
    measured = [r for name in names for r in compare.measure(name, explorer.data_name())]
    most = max(int(r.protocol[8:]) for r in measured if r.protocol.startswith("linear-n"))
    last = [result for result in measured if result.protocol == f"linear-n{most}"]
    best = max(last, key=lambda result: result.mean)
    said = f"With {most} labels a class **{best.model}** is ahead here; "
    said += "five draws of labels each, bars are their standard deviation."
    return compare.few_labels(best.model, measured), compare.table(measured), said


@page.told
def features(image: str, names: list[str]) -> list[tuple[str, str]]:
    """The features of one image under each model."""
    _check(names)
    picture = read_picture(image)
    shown = []
    for name in names:
        encoder = models.encoder(name)
        if models.has_dense(encoder):
            view = pca_picture(models.dense(encoder, picture), 384)
            shown.append((page.kept(view), encoder.name))
    if not shown:
        raise UserError("None of these models has a feature map that can be read.")
    return shown


def _check(names: list[str]) -> None:
    if not names:
        raise UserError("Choose two models or more.")
    if len(names) > 6:
        raise UserError(f"Six models at a time are the most, not {len(names)}.")


def build() -> gr.Blocks:
    """The page."""
    names, boards = models.choices(), compare.leaderboards()
    with page.blocks("Compare models") as demo:
        gr.Markdown(
            "# Compare\nModels of the zoo, or any backbone of the Hub by its id, side by side on "
            f"the same labelled images ({explorer.data_name().partition(':')[0]})."
        )
        chosen = gr.Dropdown(
            models.labelled(names),
            value=names[:2],
            multiselect=True,
            allow_custom_value=True,
            label="Models (a Hub id or timm name may be typed)",
        )
        with gr.Tab("Few labels and retrieval"):
            run = gr.Button("Compare", variant="primary")
            said = gr.Markdown("Press Compare to begin.", elem_classes="said")
            curve = gr.Plot(label="Accuracy with few labels", show_label=False)
            table = gr.Markdown()
            run.click(side_by_side, chosen, [curve, table, said], api_name="compare")
        with gr.Tab("Features of an image"):
            image = page.picture_input("Your image")
            look = gr.Button("Show the features", variant="primary")
            gr.Examples(EXAMPLES, image, label="Examples")
            gallery = gr.Gallery(label="Three principal components", columns=3, height="auto")
            look.click(features, [image, chosen], gallery, api_name="features")
        with gr.Tab("Leaderboard"):
            gr.Markdown("What was measured, as in the models' cards; in %.")
            data = gr.Dropdown(list(boards), value=next(iter(boards), None), label="Data set")
            board = gr.Markdown(next(iter(boards.values()), "No results here."))
            data.change(boards.get, data, board, api_name="leaderboard")
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
