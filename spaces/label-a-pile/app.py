"""Label a pile: a few labels by key, and the rest of the pile answers at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from rs_models.demos import chips, models, page, pile, pile_files, pile_sheet
from rs_models.demos.pile_desk import Desk, finished_example
from rs_models.errors import UserError

# Gradio's download button takes its file before it is clicked; ours is clicked when there is one.
_DOWNLOAD = "() => setTimeout(() => document.querySelector('#ready').click(), 150)"


def shown(desk: Desk) -> tuple:
    """All that the page shows of a desk; the order of `_outputs`."""
    return desk, pile_sheet.sheet_value(desk), *said_of(desk)


def said_of(desk: Desk) -> tuple:
    """What the labels say: the panel, the wall, the map and the downloads."""
    both = pile_sheet.scene_map(desk)
    slider = gr.ImageSlider(
        value=tuple(map(page.kept, both)) if both else None, visible=both is not None
    )
    some = desk.answers() is not None
    placed = some and pile_files.GEOMETRY in desk.pile.index.table.column_names
    return (
        pile_sheet.panel(desk),
        pile_sheet.wall(desk),
        slider,
        gr.Button(visible=bool(desk.labels)),
        gr.Button(visible=some),
        gr.Button(visible=placed),
        gr.Button(visible=some),
    )


@page.told
def begin(model: str) -> tuple:
    """The example pile, begun."""
    return *shown(finished_example(pile.example(model))), _told(pile.example(model))


@page.told
def drop(
    files: list[str] | None,
    model: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple:
    """A pile of a user's own, without labels."""
    desk = Desk(pile.uploaded(files or [], model, progress))
    return *shown(desk), _told(desk.pile)


@page.told
def other_model(
    desk: Desk | None,
    files: list[str] | None,
    model: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple:
    """The same tiles and labels under another model."""
    if desk is None:
        return *shown(finished_example(pile.example(model))), _told(pile.example(model))
    tiles = pile.example(model) if desk.pile.truth else pile.uploaded(files or [], model, progress)
    if len(tiles) != len(desk.pile):
        raise UserError("The files are others now: drop them again.")
    return *shown(Desk(tiles, desk.classes, desk.labels)), _told(tiles)


def _told(tiles: pile.Pile) -> str:
    """What the pile is, and what was left out of it."""
    said = f"{tiles.title}."
    if tiles.notes:
        said += f" Left out: {len(tiles.notes)}. {' '.join(tiles.notes[:3])}"
    return f"<p class='quiet'>{pile_sheet.html.escape(said)}</p>"


def _heard(desk: Desk | None, event: gr.EventData) -> tuple[Desk, bool]:
    """The desk with what an event says of its labels, and whether that was new."""
    desk = _present(desk)
    try:
        marks = [(row, name, int(moment)) for row, name, moment in getattr(event, "marks", ())]
        classes = list(event.classes)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError("These are no labels: load the page again.") from error
    return desk, desk.mark(marks, classes)


@page.told
def mark(desk: Desk | None, event: gr.EventData) -> Any:
    """Labels tiles; the sheet itself has drawn them already."""
    desk, is_new = _heard(desk, event)
    return (desk, *said_of(desk)) if is_new else gr.skip()


@page.told
def rename(desk: Desk | None, event: gr.EventData) -> tuple:
    """Gives a class another name."""
    desk, _ = _heard(desk, event)
    desk.rename(getattr(event, "old", None), getattr(event, "new", None))
    return shown(desk)


def doing(name: str) -> Callable[[Desk | None, gr.EventData], tuple]:
    """A function of the page that does something with a desk and shows it."""

    def act(desk: Desk | None, event: gr.EventData) -> tuple:
        desk, _ = _heard(desk, event)
        getattr(desk, name)()
        return shown(desk)

    return page.told(act)


@page.told
def look(desk: Desk | None, event: gr.EventData) -> tuple:
    """Lays the tiles on the sheet that are most like the one that was clicked."""
    desk = _present(desk)
    desk.lay_like(getattr(event, "row", None))
    return shown(desk)


def file_of(kind: str) -> Callable[[Desk | None], str]:
    """A function of the page that makes a file to take home."""

    def made(desk: Desk | None) -> str:
        desk = _present(desk)
        index = desk.pile.index
        if kind == "labels":
            return pile_files.labels_file(index, desk.labels)
        if kind == "classifier":
            return pile_files.classifier_file(index, desk.sure_answers())
        files = pile_files.answers_files(index, desk.sure_answers())
        return next(file for file in files if file.endswith(kind))

    return page.told(made)


def _present(desk: Desk | None) -> Desk:
    if desk is None:
        raise UserError("Your pile is not kept any longer: load the page again.")
    return desk


def _layout(names: list[str]) -> dict[str, Any]:
    """The components of the page by name."""
    made: dict[str, Any] = {}
    with gr.Accordion("Use your own images, or another model", open=False), gr.Row():
        made["files"] = gr.File(
            label="Images, a zip, or a GeoTIFF",
            file_count="multiple",
            file_types=["image", ".tif", ".tiff", ".zip"],
            height=150,
        )
        with gr.Column():
            made["model"] = gr.Dropdown(models.labelled(names), value=names[0], label="Model")
            made["again"] = gr.Button("Back to the example pile", size="sm")
    made["told"] = gr.HTML()
    made["sheet"] = gr.HTML(
        html_template="<div></div>",
        css_template=chips.STYLE + pile_sheet.STYLE,
        js_on_load=pile_sheet.SCRIPT,
        apply_default_css=False,
        elem_id="sheet",
        **pile_sheet.sheet_props(),
    )
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            made["panel"] = gr.HTML(css_template=pile_sheet.PANEL_STYLE, apply_default_css=False)
            with gr.Row():
                made["labels"] = gr.Button("Labels, CSV", size="sm", visible=False)
                made["csv"] = gr.Button("Answers, CSV", size="sm", visible=False)
                made["gpkg"] = gr.Button("Answers, GeoPackage", size="sm", visible=False)
                made["classifier"] = gr.Button("Classifier, zip", size="sm", visible=False)
            made["ready"] = gr.DownloadButton("Ready", visible="hidden", elem_id="ready")
        with gr.Column(scale=3, min_width=300):
            made["slider"] = gr.ImageSlider(
                label="The scene and its classes", visible=False, interactive=False, max_height=600
            )
            made["wall"] = gr.HTML(
                css_template=pile_sheet.WALL_STYLE,
                js_on_load=pile_sheet.WALL_SCRIPT,
                apply_default_css=False,
                elem_id="wall",
            )
    return made


def build() -> gr.Blocks:
    """The page."""
    names = models.choices()
    with page.blocks("Label a pile") as demo:
        desk = gr.State(None, time_to_live=3600)
        page.header(
            "Label a pile",
            "Thousands of tiles and no labels? Label the dozen that is suggested, by keys or by "
            "clicks, with classes of your own. The rest is answered at once, with how far to "
            "trust it. Click any tile below to label those that look like it.",
        )
        parts = _layout(names)
        after = [parts[name] for name in ("panel", "wall", "slider", "labels", "csv", "gpkg")]
        after.append(parts["classifier"])
        everything = [desk, parts["sheet"], *after]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        slow: dict[str, Any] = {"api_visibility": "private", "show_progress_on": parts["sheet"]}
        files, model, sheet = parts["files"], parts["model"], parts["sheet"]
        page.runs(demo.load, begin, model, [*everything, parts["told"]], **slow)
        page.runs(parts["again"].click, begin, model, [*everything, parts["told"]], **slow)
        page.runs(files.upload, drop, [files, model], [*everything, parts["told"]], **slow)
        page.runs(
            model.input, other_model, [desk, files, model], [*everything, parts["told"]], **slow
        )
        page.runs(sheet.mark, mark, desk, [desk, *after], trigger_mode="multiple", **quiet)
        page.runs(sheet.rename, rename, desk, everything, **quiet)
        for event, name in (
            ("suggested", "lay_suggested"),
            ("doubtful", "lay_doubtful"),
            ("undo", "undo"),
            ("over", "start_over"),
        ):
            page.runs(
                getattr(sheet, event),
                doing(name),
                desk,
                everything,
                trigger_mode="multiple",
                **quiet,
            )
        page.runs(parts["wall"].look, look, desk, everything, **quiet)
        for button, kind in (
            ("labels", "labels"),
            ("csv", ".csv"),
            ("gpkg", ".gpkg"),
            ("classifier", "classifier"),
        ):
            page.runs(parts[button].click, file_of(kind), desk, parts["ready"], **quiet).success(
                None, None, None, js=_DOWNLOAD, api_visibility="private"
            )
    return demo


def warm() -> None:
    """Look at the example pile before anybody asks."""
    try:
        finished_example(pile.example(models.choices()[0])).answers()
    except UserError as error:
        print(f"Not ready: {error}")


demo = build()

if __name__ == "__main__":
    warm()
    page.launch(demo)
