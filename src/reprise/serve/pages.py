"""The two pages of a server: one to try the model, and the reference of the API. Both load nothing from elsewhere."""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _digest(content: str) -> str:
    """Return the digest of an inline script or style for a content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


COLORS = HERE.with_name("report") / "colors.css"  # those of the report
STYLES = "".join(file.read_text(encoding="utf-8") for file in (COLORS, HERE / "page.css"))
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
PLAYGROUND = (HERE / "page.html").read_text(encoding="utf-8").replace("{styles}", STYLES).replace("{script}", SCRIPT)
REFERENCE_POLICY = (
    f"default-src 'none'; style-src {_digest(STYLES)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PLAYGROUND_POLICY = f"{REFERENCE_POLICY}; connect-src 'self'; script-src {_digest(SCRIPT)}"


def render_reference(openapi: dict[str, Any]) -> str:
    """Return the page of an OpenAPI description."""
    parts = []
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(about.get('description', about['summary']))}</p>")
            if "requestBody" in about:
                parts.append("<p>The body is a <a href='#PredictRequest'>PredictRequest</a>, for example:</p>")
                example = json.dumps(openapi["components"]["schemas"]["PredictRequest"]["examples"][0])
                command = f"curl localhost:8080{path} --json '{example}'"
                parts.append(f"<pre tabindex='0'>{escape(command)}</pre>")
                listed = (
                    f"<li>{escape(code)}: {escape(each['description'])}" for code, each in about["responses"].items()
                )
                parts.append(f"<ul>{''.join(listed)}</ul>")
    for name, schema in openapi["components"]["schemas"].items():
        parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3>")
        parts.append(f"<pre tabindex='0'>{escape(json.dumps(schema, indent=2))}</pre>")
    title = escape(openapi["info"]["title"])
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}: API</title><style>{STYLES}</style></head><body>"
        f"<header><p class='brand'>Reprise</p><h1>{title}</h1>"
        f"<p class='lead'>The API, version {escape(openapi['info']['version'])}. "
        "<a href='openapi.json'>As OpenAPI</a>, <a href='.'>try it</a>.</p></header>"
        f"<main>{''.join(parts)}</main></body></html>"
    )
