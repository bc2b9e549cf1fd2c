"""Render the report to one HTML file that works offline.

Three measures prevent texts of the data from acting as markup: Jinja escapes every value, JSON in the page is written
without `<`, and the page's content security policy allows no requests and only the scripts with the listed digests.
"""

import base64
import hashlib
from dataclasses import asdict
from pathlib import Path

import jinja2
from markupsafe import Markup

from reprise.data.checks import MEANINGS
from reprise.report.context import ReportContext
from reprise.report.table import format_short, format_value
from reprise.report.vega import vega

HERE = Path(__file__).parent


def render(context: ReportContext) -> str:
    """Render the template with styles, data, Vega's JavaScript and the report's own."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"format_value": format_value, "format_short": format_short}
    scripts = [vega(), *map(_read, ("names.js", "report.js"))]
    return environment.get_template("template.html").render(
        asdict(context),
        check_meanings=MEANINGS,
        styles=Markup("\n".join(map(_read, ("colors.css", "report.css")))),  # noqa: S704  files of this package
        scripts=[Markup(script) for script in scripts],  # noqa: S704  scripts of this package and Vega's
        digests=[digest(script) for script in scripts],
    )


def _read(name: str) -> str:
    """Return a file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """Return the digest of an inline script for a content security policy (www.w3.org/TR/CSP3, section 8.4)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
