"""report.html: a report as one page that is read offline, without script. A view: report.json is the truth.

Names and texts of a report come from files that others wrote. Each is escaped, and what is not printable (control
characters, marks that turn the writing direction) is shown, not obeyed. No address in the page comes from the report.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined, TemplateError
from markupsafe import Markup

from mcutune.errors import Damaged
from mcutune.files import read_json, refuse_other_hash, write_bytes
from mcutune.inert import inert
from mcutune.robustness import shades
from mcutune.robustness.gate import read_verdict
from mcutune.robustness.page import drawings, page
from mcutune.robustness.tables import gap, title

PAGE = "report.html"
LIMIT = 2_000_000  # bytes of a page
_ROWS = (1023, 255, 63, 15)  # of a table: as many as fit
_TEMPLATE, _STYLE = "report.html.j2", "report.css"
_TEMPLATES = (
    _TEMPLATE,
    "report_macros.html.j2",
    "report_comparators.html.j2",
    "report_gap.html.j2",
    "report_overall.html.j2",
    "report_calibration.html.j2",
    "difference.html.j2",
)


def render(report: dict[str, Any], verdict: dict[str, Any] | None = None) -> str:
    """The page of a report, the same text for the same report; under 2 MB, the weakest rows of long tables only.

    `verdict`: of a gate (see gate.decide), shown near the top.

    Raises LookupError, TypeError, ValueError, AttributeError or jinja2.TemplateError for what is no report.
    """
    template, css = environment().get_template(_TEMPLATE), style()
    made = ""
    drawn = drawings(report)
    for most in _ROWS:
        seen = page(report, drawn, most)
        made = template.render(page=seen, verdict=verdict, style=Markup(css), policy=policy(css), most=most)
        if len(made.encode()) < LIMIT:
            break
    return made


def write(report_json: Path) -> Path:
    """Write report.html beside a report.json, with the verdict of a gate.json of this report; its path.

    Raises BadInput or Damaged where that is no report.
    """
    refuse_other_hash(report_json)
    report = read_json(report_json)
    try:
        made = render(report, read_verdict(report_json))
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration, TemplateError):
        raise Damaged(f"{report_json} is not a report", hint="mcutune robustness makes it anew") from None
    path = report_json.with_name(PAGE)
    write_bytes(path, made.encode())
    return path


def _finalize(value: Any) -> Any:
    """What jinja2 does with every value before it escapes it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return inert(value.strip())
    return value


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Templates whose every value is made inert and escaped."""
    texts = {name: _text(name) for name in _TEMPLATES}
    made = Environment(
        loader=DictLoader(texts),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"gap": gap, "title": title}
    return made


@lru_cache(maxsize=1)
def style() -> str:
    """The one style of all pages."""
    return _text(_STYLE) + shades.css()


def _text(name: str) -> str:
    return resources.files("mcutune.robustness").joinpath(name).read_text(encoding="utf-8")


def policy(style: str) -> str:
    """Nothing is loaded, run or sent; the one style is known by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
