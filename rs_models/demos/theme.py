"""The looks of all pages: colours, type and the few shapes that are their own, light and dark.

A map sheet: paper, ink, hairlines, one green that acts and one orange that marks what is chosen.
Fonts are the reader's own, so that nothing is fetched from elsewhere.
"""

from __future__ import annotations

from typing import Any

_SANS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]

# From the lightest to the darkest, as gradio counts them: 50, 100, ... 900, 950.
_GREEN = (
    *("#effaf5", "#d8f1e5", "#b3e2cd", "#80cbae", "#4aae8b", "#27926f"),
    *("#187559", "#145e49", "#124b3b", "#0f3e32", "#07231c"),
)
_PAPER = (
    *("#faf9f6", "#f2f0ea", "#e4e0d6", "#cfcabd", "#a3a093", "#76766c"),
    *("#56584f", "#3f423b", "#2a2e29", "#1b1f1b", "#111411"),
)

CSS = """
:root { --mark: #c2570c; --ink: #1b1f1b; --paper: #faf9f6; --card: #ffffff; --hair: #e4e0d6;
  --quiet: #66685f; --go: #187559; --wash: #effaf5; --bad: #a32020; --bad-wash: #fdf0ee; }
.dark { --mark: #f2a65a; --ink: #eceae3; --paper: #111411; --card: #1b1f1b; --hair: #343933;
  --quiet: #a3a093; --go: #4aae8b; --wash: #14241e; --bad: #f2a49b; --bad-wash: #2c1715; }
.gradio-container { max-width: min(1240px, 100vw) !important; margin: 0 auto !important; }
.gradio-container .main, .gradio-container > .wrap { padding-top: 0 !important; }
.masthead { border-bottom: 1px solid var(--hair); padding: 22px 0 16px; margin-bottom: 6px; }
.masthead p.series { margin: 0 0 4px; font-size: .72rem; letter-spacing: .13em;
  text-transform: uppercase; color: var(--go); font-weight: 600; }
.masthead h1 { font-size: clamp(1.55rem, 4.4vw, 2.15rem); line-height: 1.12; margin: 0 0 8px;
  letter-spacing: -.015em; font-weight: 700; color: var(--ink); }
.masthead p.lead { margin: 0; max-width: 74ch; color: var(--quiet); font-size: 1rem;
  line-height: 1.5; }
.gradio-container .html-container { padding: 0 !important; }
.said { min-height: 1.5em; }
.said p { font-size: 1.02rem; line-height: 1.5; }
.quiet, .quiet p { color: var(--quiet); font-size: .88rem; }
h2.part { font-size: .78rem; letter-spacing: .09em; text-transform: uppercase; font-weight: 650;
  color: var(--quiet); margin: 10px 0 2px; }
.legend { width: 100%; border-collapse: collapse; border: 0 !important; }
.legend caption { text-align: left; padding-bottom: .4em; color: var(--quiet); font-size: .85rem; }
.legend th, .legend td { padding: .34em .5em; text-align: left; border: 0 !important;
  border-bottom: 1px solid var(--hair) !important; background: none !important;
  font-weight: 400; }
.legend tr, .legend thead, .legend tbody { border: 0 !important; background: none !important; }
.legend thead th { color: var(--quiet); font-size: .82rem; }
.legend td.number, .legend th.number { text-align: right; font-variant-numeric: tabular-nums; }
.legend .swatch { display: inline-block; width: 1em; height: 1em; border-radius: 3px;
  vertical-align: -0.15em; margin-right: .5em; border: 1px solid var(--hair); }
.gradio-container .prose table:not(.legend) { display: block; overflow-x: auto; max-width: 100%; }
.gradio-container .prose td, .gradio-container .prose th { white-space: nowrap; }
.gradio-container .caption-label { white-space: normal !important; overflow: visible !important;
  max-width: 100% !important; font-size: .78rem; line-height: 1.25; }
.gradio-container .tabitem, .gradio-container .column, .gradio-container .block { min-width: 0; }
.gradio-container .tabitem { padding: 10px 0 0 !important; border: 0 !important; }
.gradio-container .thumbnail-lg { background: var(--card); }
.gradio-container .gallery-item { background: none !important; }
.gradio-container .picture img { width: 100% !important; height: 100% !important;
  object-fit: contain; }
.cards { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--least), calc(50% - 6px)), 1fr)); }
.cards figure { margin: 0; }
.cards img { width: 100%; height: auto; display: block; margin: 0; border-radius: 8px; }
.cards figcaption { font-size: .82rem; line-height: 1.3; color: var(--quiet); padding: 5px 2px 0; }
.plot svg text { fill: currentColor; }
.plot { color: var(--ink); overflow-x: auto; }
.plot svg { display: block; width: 100%; height: auto; max-width: 640px; }
.board { overflow-x: auto; border: 1px solid var(--hair); border-radius: 8px;
  background: var(--card); }
.board table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: 0 !important; }
.board th, .board td { padding: 7px 10px; border: 0; border-bottom: 1px solid var(--hair);
  white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; color: var(--ink); }
.board tbody tr:last-child th, .board tbody tr:last-child td { border-bottom: 0; }
.board th:first-child { text-align: left; position: sticky; left: 0; background: var(--card);
  z-index: 1; font-weight: 500; max-width: 46vw; white-space: normal; }
.board thead button { font: inherit; color: var(--quiet); background: none; border: 0; padding: 0;
  cursor: pointer; white-space: nowrap; }
.board thead [aria-sort=descending] button::after { content: " \\2193"; color: var(--mark); }
.board thead [aria-sort=ascending] button::after { content: " \\2191"; color: var(--mark); }
.board small { color: var(--quiet); display: block; font-size: .76rem; }
.board tr.yardstick th, .board tr.yardstick td { color: var(--quiet); }
.board td.best { font-weight: 700; color: var(--go); }
.toast-wrap { position: fixed !important; top: auto !important; bottom: 14px !important;
  left: 50% !important; right: auto !important; transform: translateX(-50%);
  width: min(680px, calc(100vw - 24px)) !important; max-width: none !important; }
.toast-body { border-radius: 10px !important; width: 100% !important; max-width: none !important; }
div.wrap:has(> span.error) { display: none !important; }
button:focus-visible, [tabindex]:focus-visible, a:focus-visible { outline: 3px solid var(--mark);
  outline-offset: 2px; }
@media (max-width: 640px) {
  .gradio-container { padding: 0 12px !important; }
  .masthead { padding-top: 14px; }
  .masthead p.lead { font-size: .95rem; }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important;
  animation-duration: .01ms !important; } }
"""


def theme() -> Any:
    """Gradio's theme of all pages."""
    import gradio as gr

    green = gr.themes.Color(*_GREEN, name="green")
    paper = gr.themes.Color(*_PAPER, name="paper")
    base = gr.themes.Base(
        primary_hue=green,
        secondary_hue=green,
        neutral_hue=paper,
        radius_size=gr.themes.sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    )
    return base.set(
        body_background_fill=_PAPER[0],
        body_background_fill_dark=_PAPER[10],
        body_text_color=_PAPER[9],
        body_text_color_dark="#eceae3",
        body_text_color_subdued="#66685f",
        body_text_color_subdued_dark=_PAPER[4],
        background_fill_primary="#ffffff",
        background_fill_primary_dark=_PAPER[9],
        background_fill_secondary=_PAPER[1],
        background_fill_secondary_dark="#232823",
        border_color_primary=_PAPER[2],
        border_color_primary_dark="#343933",
        block_background_fill="#ffffff",
        block_background_fill_dark=_PAPER[9],
        block_border_width="1px",
        block_shadow="none",
        block_label_background_fill="#ffffff",
        block_label_background_fill_dark=_PAPER[9],
        block_label_text_color="#66685f",
        block_label_text_color_dark=_PAPER[4],
        block_title_text_color="#66685f",
        block_title_text_color_dark=_PAPER[4],
        block_title_text_weight="500",
        input_background_fill=_PAPER[0],
        input_background_fill_dark=_PAPER[10],
        input_border_color=_PAPER[3],
        input_border_color_dark="#454b44",
        button_primary_background_fill=_GREEN[6],
        button_primary_background_fill_hover=_GREEN[7],
        button_primary_background_fill_dark=_GREEN[5],
        button_primary_background_fill_hover_dark=_GREEN[6],
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover=_PAPER[1],
        button_secondary_background_fill_dark="#232823",
        button_secondary_background_fill_hover_dark=_PAPER[8],
        button_secondary_border_color=_PAPER[3],
        button_secondary_border_color_dark="#454b44",
        button_border_width="1px",
        slider_color=_GREEN[6],
        slider_color_dark=_GREEN[4],
        link_text_color=_GREEN[6],
        link_text_color_dark=_GREEN[3],
        color_accent_soft=_GREEN[0],
        color_accent_soft_dark="#14241e",
    )
