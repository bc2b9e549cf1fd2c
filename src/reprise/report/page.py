"""From content to one HTML file that fetches nothing.

Three things keep a text of the data a text: Jinja escapes all that it fills in, JSON in the page is written without
`<`, and the page's own policy lets no script run but the two whose digests it names, and nothing be fetched.
"""

import base64
import hashlib
from dataclasses import asdict
from pathlib import Path

import jinja2
from markupsafe import Markup

from reprise.report.context import ReportContext
from reprise.report.table import format_value
from reprise.report.vega import vega

HERE = Path(__file__).parent


def render(context: ReportContext) -> str:
    """The page: the template with Vega's JavaScript, our own, the styles and the data in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["told"] = format_value
    scripts = [vega(), (HERE / "report.js").read_text(encoding="utf-8")]
    return environment.get_template("template.html").render(
        asdict(context),
        styles=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704  our own, and Vega's
        digests=[digest(script) for script in scripts],
    )


def digest(script: str) -> str:
    """How a content security policy names a script that stands in the page (www.w3.org/TR/CSP3, section 8.4)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
