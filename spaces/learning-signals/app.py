"""What does it learn from? The learning signal of each method on an image of yours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from rs_models.demos import models, page, signals_shown
from rs_models.demos.pictures import cards
from rs_models.demos.uploads import read_picture, shrunk
from rs_models.papers import PAPERS

EXAMPLES = sorted(str(path) for path in (Path(__file__).parent / "examples").glob("*.jpg"))
METHODS = {paper.label: name for name, paper in PAPERS.items()}


@page.told
def learning_signal(
    image: str,
    method: str,
    scene: str | None,
    model: str,
    seed: float,
    scope: str,
    threshold: float,
) -> tuple[str, str]:
    """Pictures of a method's signal with captions, and what is to be seen."""
    name, seed = METHODS[method], int(seed)
    picture = shrunk(read_picture(image), 1024)
    if name == "sticl":
        other = read_picture(scene or _another(image))
        shown = signals_shown.sticl(picture, shrunk(other, 1024), seed)
    elif name == "false":
        batch = [picture, *([read_picture(scene)] if scene else [])]
        others = [path for path in EXAMPLES if Path(path).name != Path(image).name]
        batch += [read_picture(example) for example in others]
        shown = signals_shown.false(
            batch[:12], models.encoder(model), seed, scope=scope, threshold=threshold
        )
    elif name == "last":
        shown = signals_shown.last(picture, models.encoder(model), seed)
    else:
        shown = getattr(signals_shown, name)(picture, seed)
    return cards(shown.pictures, 210), shown.said


def about(method: str) -> str:
    """The paper, and what the method learns from."""
    paper = PAPERS[METHODS[method]]
    source = f"[{paper.venue[0]} {paper.year}]({paper.link})"
    return f"**{paper.label}** ({source}) learns from {paper.learns_from}."


def _another(image: str) -> str:
    """An example that is not the image itself."""
    return next(path for path in EXAMPLES if Path(path).name != Path(image).name)


def build() -> gr.Blocks:
    """The page."""
    names, first = models.choices(), next(iter(METHODS))
    with page.blocks("What does it learn from?") as demo:
        page.header(
            "What does it learn from?",
            "No labels, so each method makes its own question from the images. The pictures come "
            "from the training code itself, with each method's defaults; FALSE starts below its "
            "threshold of 0.9, so that a small batch shows pairs.",
        )
        method = gr.Radio(list(METHODS), value=first, label="Method", elem_id="method")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = page.picture_input("Your image", value=EXAMPLES[0])
                examples = gr.Examples(EXAMPLES, image, label="Examples")
                seed = gr.Number(0, precision=0, visible=False)
                again = gr.Button("Draw again")
                scene = page.picture_input("A second image", visible=False)
                model = gr.Dropdown(
                    models.labelled(names),
                    value=names[0],
                    label="Model whose features are asked",
                    visible=False,
                )
                scope = gr.Radio(["batch", "row"], value="row", label="FALSE: scope", visible=False)
                threshold = gr.Slider(
                    0,
                    1,
                    0.6,
                    step=0.05,
                    label="FALSE: least cosine of an anchor's own views",
                    visible=False,
                )
            with gr.Column(scale=5, min_width=300):
                paper = gr.Markdown(about(first))
                said = gr.Markdown(elem_classes="said", min_height=48)
                gallery = gr.HTML(min_height=300, elem_id="signal")
        slow: dict[str, Any] = {
            "inputs": [image, method, scene, model, seed, scope, threshold],
            "outputs": [gallery, said],
            "trigger_mode": "always_last",
        }
        page.runs(demo.load, learning_signal, api_visibility="private", **slow)
        changed = page.runs(
            method.input,
            settings_of,
            method,
            [paper, scene, model, scope, threshold],
            api_name="about",
        )
        page.runs(changed.success, learning_signal, api_name="learning_signal", **slow)
        drawn = again.click(lambda seed: seed + 1, seed, seed, api_visibility="private")
        begun = [drawn, page.uploads(image), page.uploads(scene), examples.load_input_event]
        for done in begun:
            page.runs(done.success, learning_signal, api_visibility="private", **slow)
        page.runs(
            [model.input, scope.input, threshold.release],
            learning_signal,
            api_visibility="private",
            **slow,
        )
    return demo


def settings_of(method: str) -> tuple:
    """What a method is, and its own settings and no other's."""
    name = METHODS[method]
    return (
        about(method),
        gr.Image(visible=name in ("sticl", "false")),
        gr.Dropdown(visible=name in ("false", "last")),
        gr.Radio(visible=name == "false"),
        gr.Slider(visible=name == "false"),
    )


demo = build()

if __name__ == "__main__":
    page.launch(demo)
