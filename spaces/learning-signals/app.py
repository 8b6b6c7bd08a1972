"""What does it learn from? The learning signal of each method on an image of yours."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from rs_models.demos import models, page, signals_shown
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
) -> tuple[list[tuple[str, str]], str]:
    """Pictures of a method's signal with captions, and what is to be seen."""
    name, seed = METHODS[method], int(seed)
    picture = shrunk(read_picture(image), 1024)
    if name == "sticl":
        other = read_picture(scene or _another(image))
        shown = signals_shown.sticl(picture, shrunk(other, 1024), seed)
    elif name == "false":
        batch = [picture, *([read_picture(scene)] if scene else [])]
        batch += [read_picture(example) for example in EXAMPLES]
        shown = signals_shown.false(
            batch[:12], models.encoder(model), seed, scope=scope, threshold=threshold
        )
    elif name == "last":
        shown = signals_shown.last(picture, models.encoder(model), seed)
    else:
        shown = getattr(signals_shown, name)(picture, seed)
    return [(page.kept(view), caption) for view, caption in shown.pictures], shown.said


def about(method: str) -> str:
    """The paper, and what the method learns from."""
    paper = PAPERS[METHODS[method]]
    return f"**{paper.label}** ([{paper.venue[0]} {paper.year}]({paper.link})) learns from " + (
        f"{paper.learns_from}."
    )


def _another(image: str) -> str:
    """An example that is not the image itself."""
    return next(path for path in EXAMPLES if Path(path).name != Path(image).name)


def build() -> gr.Blocks:
    """The page."""
    names, first = models.choices(), next(iter(METHODS))
    with page.blocks("What does it learn from?") as demo:
        gr.Markdown(
            "# What does it learn from?\nNo labels, so each method makes its own question from "
            "the images. The pictures come from the training code itself, with each method's "
            "defaults; FALSE starts below its threshold of 0.9, so that a small batch shows pairs."
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = page.picture_input("Your image")
                method = gr.Radio(list(METHODS), value=first, label="Method")
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Draw (seed)")
                run = gr.Button("Show the signal", variant="primary")
                gr.Examples(EXAMPLES, image, label="Examples")
                with gr.Accordion("Second image, model, FALSE's settings", open=False):
                    scene = page.picture_input("Second image (STICL's scene; one more for FALSE)")
                    model = gr.Dropdown(
                        models.labelled(names),
                        value=names[0],
                        label="Model (FALSE's embeddings, LaST's attention)",
                    )
                    scope = gr.Radio(["batch", "row"], value="row", label="FALSE: scope")
                    threshold = gr.Slider(
                        0, 1, 0.6, step=0.05, label="FALSE: least cosine of an anchor's own views"
                    )
            with gr.Column(scale=3):
                paper = gr.Markdown(about(first))
                said = gr.Markdown("Choose an image to begin.", elem_classes="said")
                gallery = gr.Gallery(
                    label="The signal", columns=3, height="auto", object_fit="contain"
                )
        given = [image, method, scene, model, seed, scope, threshold]
        run.click(learning_signal, given, [gallery, said], api_name="learning_signal")
        method.change(about, method, paper, api_name="about")
    return demo


demo = build()

if __name__ == "__main__":
    page.launch(demo)
