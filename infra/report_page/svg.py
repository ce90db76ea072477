"""Elements of SVG as markup: every value and every text is escaped here, whoever it is from."""

from __future__ import annotations

from markupsafe import Markup, escape

Value = str | float


def element(name: str, *children: str | Markup, **attributes: Value) -> Markup:
    """`<name key="value">children</name>`. A child that is no Markup is text. `class_` is `class`, `_` becomes `-`."""
    told = Markup("").join(
        Markup(' {}="{}"').format(_key(key), _number(value) if isinstance(value, float) else value)
        for key, value in attributes.items()
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), told, inner)


def picture(title: str, description: str, *children: Markup, **attributes: Value) -> Markup:
    """An `<svg>` that a screen reader reads by its title and description."""
    named = (element("title", title), element("desc", description))
    return element("svg", *named, *children, role="img", **attributes)


def percent(share: float) -> str:
    """0.25 as `25%`, for coordinates that follow the width of the page."""
    return f"{_number(share * 100)}%"


def _key(name: str) -> Markup:
    return Markup(name.removesuffix("_").replace("_", "-") if name != "viewBox" else name)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
