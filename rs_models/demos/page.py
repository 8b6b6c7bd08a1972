"""What every page has in common: looks, limits, errors in a sentence, no file left behind."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

from ..errors import ServiceError, UserError
from . import keeping
from .keeping import kept, result_folder, workspace
from .uploads import MAX_BYTES

__all__ = ["blocks", "kept", "launch", "picture_input", "result_folder", "told", "workspace"]

# Before gradio is imported: its own telemetry is not ours to send.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

QUEUE = 64
"""Requests that may wait; a further one is told to come back."""
_log = logging.getLogger(__name__)

_CSS = """
.gradio-container { max-width: min(1180px, 100vw) !important; margin: 0 auto !important; }
.legend { width: 100%; border-collapse: collapse; }
.legend caption { text-align: left; padding-bottom: .4em; }
.legend th, .legend td { padding: .3em .5em; text-align: left;
  border-bottom: 1px solid var(--border-color-primary); }
.legend td.number, .legend th.number { text-align: right; font-variant-numeric: tabular-nums; }
.legend .swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px;
  vertical-align: -0.15em; margin-right: .5em; border: 1px solid var(--border-color-primary); }
.gradio-container .prose table:not(.legend) { display: block; overflow-x: auto; max-width: 100%; }
.gradio-container .prose td, .gradio-container .prose th { white-space: nowrap; }
.said { min-height: 1.5em; }
.gradio-container .caption-label { white-space: normal !important; overflow: visible !important;
  max-width: 100% !important; font-size: .75rem; line-height: 1.2; }
.gradio-container .tabitem, .gradio-container .column, .gradio-container .block { min-width: 0; }
"""


def blocks(title: str) -> Any:
    """An empty page, whose requests may name only what was uploaded to it or is its example.

    What users upload and what it wrote for them is deleted ten minutes after, or after
    `RS_MODELS_DEMO_KEEP` seconds.
    """
    workspace()
    return _page_class()(title=title, analytics_enabled=False)


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
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)

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
        label=label, type="filepath", sources=["upload", "clipboard"], height=300, **settings
    )
    # Its own opens the file first, and says "Error" where it cannot.
    made.preprocess = lambda payload: None if payload is None else payload.path
    return made


def launch(page: Any, **settings: Any) -> Any:
    """Starts a page: queue and upload limits, system fonts, no API beyond the named ones.

    Args:
        page: The blocks.
        settings: Settings of `Blocks.launch`, in place of ours.
    """
    import gradio as gr

    fonts = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    # Every request goes through the queue, where its files are known.
    page.queue(max_size=QUEUE, default_concurrency_limit=2, api_open=False)
    values: dict[str, Any] = {
        "theme": theme,
        "css": _CSS,
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
