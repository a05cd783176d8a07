"""The look of the page: Gradio's theme bent to our variables, and the style sheet that every part shares."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

STATIC = Path(__file__).parent / "static"
SHEETS = (
    *("page.css", "rail.css", "slider.css", "words.css", "stage.css", "bargain.css", "replay.css"),
    *("lab.css", "explore.css", "path.css", "workshop.css", "public.css"),
)
FIGURE_AXIS = {"zeroline": False, "fixedrange": True, "tickfont": {"size": 11}, "automargin": True}
FIGURE_FONT = {"family": "IBM Plex Sans, system-ui, sans-serif", "size": 11}
"""What every plotly figure of studies and labs shares; colours come from CSS variables in the browser."""


def theme() -> gr.themes.Base:
    """Gradio's own parts in our colours. The bundled fonts have Latin letters in weights 400 and 700 only."""
    sans, mono = (LocalFont(name, weights=(400, 700)) for name in ("IBM Plex Sans", "IBM Plex Mono"))
    look = {
        "body_background_fill": "var(--page)",
        "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--ink-2)",
        "background_fill_primary": "var(--card)",
        "background_fill_secondary": "var(--well)",
        "border_color_primary": "var(--rule)",
        "block_background_fill": "transparent",
        "block_border_width": "0px",
        "block_shadow": "none",
        "block_label_text_color": "var(--ink-2)",
        "block_title_text_color": "var(--ink)",
        "block_info_text_color": "var(--ink-2)",
        "input_background_fill": "var(--well)",
        "input_border_color": "var(--rule)",
        "input_border_color_focus": "var(--focus)",
        "input_placeholder_color": "var(--ink-3)",
        "color_accent": "var(--ink)",
        "color_accent_soft": "var(--well)",
        "slider_color": "var(--ink)",
        "button_primary_background_fill": "var(--ink)",
        "button_primary_background_fill_hover": "var(--ink-strong)",
        "button_primary_text_color": "var(--card)",
        "button_secondary_background_fill": "var(--card)",
        "button_secondary_background_fill_hover": "var(--well)",
        "button_secondary_text_color": "var(--ink)",
        "panel_background_fill": "transparent",
    }
    dark = {
        f"{key}_dark": text for key, text in look.items() if f"{key}_dark" in gr.themes.Base.set.__code__.co_varnames
    }
    return gr.themes.Base(font=[sans, "system-ui", "sans-serif"], font_mono=[mono, "monospace"]).set(**look, **dark)


def head(rules: str = "") -> str:
    """The style sheets and further rules, inline: as `css` Gradio would rewrite them, and a link flashes."""
    sheets = "\n".join((STATIC / name).read_text("utf-8") for name in SHEETS)
    return f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{sheets}{rules}</style>'
