"""What every page has in common: looks, limits, errors in a sentence, no file left behind."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ServiceError, UserError
from . import keeping
from .keeping import kept, result_folder, workspace
from .theme import CSS, theme
from .uploads import MAX_BYTES, read_picture

__all__ = [
    "blocks",
    "header",
    "kept",
    "launch",
    "picture_input",
    "result_folder",
    "runs",
    "told",
    "uploads",
    "workspace",
]

# Before gradio is imported: its own telemetry is not ours to send.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Class of the components that stay files.
_PICTURE = "picture"
QUEUE = 64
"""Requests that may wait; a further one is told to come back."""
_log = logging.getLogger(__name__)

# Takes away what was said of an earlier mistake.
_FORGIVE = "() => document.querySelectorAll('.toast-close').forEach(b => b.click())"


def blocks(title: str) -> Any:
    """An empty page, whose requests may name only what was uploaded to it or is its example.

    What users upload and what it wrote for them is deleted ten minutes after, or after
    `RS_MODELS_DEMO_KEEP` seconds.
    """
    workspace()
    return _page_class()(title=title, analytics_enabled=False)


def header(title: str, lead: str) -> Any:
    """The head of a page: its name and a sentence or two.

    Args:
        title: Name of the page.
        lead: What it is for; HTML of our own, never a user's words.
    """
    import gradio as gr

    return gr.HTML(
        f"<header class='masthead'><p class='series'>rs_models</p><h1>{title}</h1>"
        f"<p class='lead'>{lead}</p></header>"
    )


def runs(
    triggers: Any, function: Callable[..., Any], inputs: Any, outputs: Any, **settings: Any
) -> Any:
    """Binds a function to what users do; what was said of an earlier mistake goes when it is done.

    Args:
        triggers: An event of a component, or several.
        function: One of `told`.
        inputs: Components that it is given.
        outputs: Components that it fills; the first shows that it is at work.
        settings: Settings of `gradio.on`.
    """
    import gradio as gr

    listed = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    settings.setdefault("show_progress_on", listed[0])
    if settings.get("api_visibility") == "private":  # which would else take the function's name
        settings.setdefault("api_name", "private")
    if isinstance(triggers, list | tuple):
        done = gr.on(triggers, function, inputs, outputs, **settings)
    else:  # an event of a component's own is no trigger of `on`
        done = triggers(function, inputs, outputs, **settings)
    done.success(None, None, None, js=_FORGIVE, api_visibility="private")
    return done


_FORGED = "This page sends no such values: load it again."


@functools.cache
def _page_class() -> Any:
    import gradio as gr

    class Page(gr.Blocks):
        """Blocks that look at the files that a request names before anything opens them.

        Gradio checks only those that its own client marks as files.
        """

        async def preprocess_data(
            self, block_fn: Any, inputs: Any, state: Any, explicit_call: bool = False
        ) -> Any:
            if not explicit_call:
                try:
                    keeping.check_uploaded(inputs)
                except UserError as error:
                    raise _shown(error) from None
            for block in block_fn.inputs:
                # A session that has changed a component has one of its own, made anew.
                own = state[block._id] if state is not None and block._id in state else block
                if _PICTURE in (getattr(own, "elem_classes", None) or ()):
                    own.preprocess = _path_of
            try:
                return await super().preprocess_data(block_fn, inputs, state, explicit_call)
            except (gr.Error, OSError):  # the page's own words; a disk that is full
                raise
            except Exception:  # gradio's checks of what a forged request says
                _log.warning("A request with values that the page does not send", exc_info=True)
                raise _shown(UserError(_FORGED)) from None

    return Page


def _shown(error: Exception) -> Exception:
    """An error as its sentence on the page."""
    import gradio as gr

    return gr.Error(str(error), duration=None, print_exception=False)


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A page's function whose errors reach the user as a sentence, never as a stack trace."""
    import gradio as gr

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with keeping.request():
                return function(*args, **kwargs)
        except gr.Error:
            raise
        except (UserError, ServiceError) as error:
            raise _shown(error) from None
        except MemoryError:
            raise gr.Error("This is too large for this machine: try a smaller image.") from None
        except Exception:
            _log.exception("A page's function failed")
            raise gr.Error(
                "Something went wrong on our side; the log has the details. Try another image.",
                print_exception=False,
            ) from None

    return wrapped


def picture_input(label: str, **settings: Any) -> Any:
    """An image upload that hands over the file as it is: our reader tells what is wrong with it."""
    import gradio as gr

    made: Any = gr.Image(
        label=label,
        type="filepath",
        sources=["upload", "clipboard"],
        height=300,
        elem_classes=_PICTURE,
        **settings,
    )
    made.preprocess = _path_of
    return made


def _path_of(payload: Any) -> str | None:
    """The file of an image: gradio's own opens it first, and says "Error" where it cannot."""
    return None if payload is None else payload.path


def uploads(image: Any) -> Any:
    """What happens when a file is uploaded to a picture, to go on from by `success`.

    A browser shows no TIFF, so one is replaced by a picture of it.

    Args:
        image: From `picture_input`.
    """
    return image.upload(
        told(_visible), image, image, api_visibility="private", show_progress="hidden"
    )


def _visible(path: str | None) -> Any:
    """A file that browsers show."""
    import gradio as gr
    from PIL import Image

    if path is None or not path.lower().endswith((".tif", ".tiff")):
        return gr.skip()
    shown = result_folder() / f"{Path(path).stem}.png"
    Image.fromarray(read_picture(path)).save(shown)
    return str(shown)


def launch(page: Any, **settings: Any) -> Any:
    """Starts a page: queue and upload limits, system fonts, no API beyond the named ones.

    Args:
        page: The blocks.
        settings: Settings of `Blocks.launch`, in place of ours.
    """
    # Every request goes through the queue, where its files are known.
    page.queue(max_size=QUEUE, default_concurrency_limit=2, api_open=False)
    values: dict[str, Any] = {
        "theme": theme(),
        "css": CSS,
        "max_file_size": MAX_BYTES,
        "show_error": True,
        "ssr_mode": False,
        "share": False,
        "state_session_capacity": 200,  # a session may hold a map
        "footer_links": ["api"],
    }
    cleaner = keeping.cleaner()
    cleaner.keep = keeping.keep_seconds()
    cleaner.watch(page)
    cleaner.start()
    return page.launch(**(values | settings))
