"""Make `dvc plots show` work offline, and show its data as text: an HTML template for DVC.

DVC's own template loads Vega from the network whenever the page is opened, and writes labels and texts into scripts,
which a label such as `</script><script>…` ends. `make setup` and `reprise report` write another template and set it in
.dvc/config.local. Neither file is committed: a megabyte of JavaScript cannot be reviewed, and DVC fails if the
configured template is missing.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path

from reprise.core.files import atomic_file
from reprise.report.page import digest
from reprise.report.vega import vega
from reprise.results.vcs import check_output, try_output

TEMPLATE = Path(".dvc/plots/page.html")
SETTING = "plots.html_template"
HERE = Path(__file__).parent


def install_offline_template() -> None:
    """Write the template and configure DVC to use it, unless the user configured another template."""
    made_of = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("dvc_plots.py", "plots.js", "names.js")))
    head = f"<!-- with Vega from vl-convert-python {version('vl-convert-python')}, page {made_of.hexdigest()[:16]} -->"
    if TEMPLATE.is_file() and head in TEMPLATE.read_text(encoding="utf-8"):
        return
    with atomic_file(TEMPLATE) as partial:
        partial.write_text(offline_template(head), encoding="utf-8")
    if not try_output("dvc", "config", SETTING):
        check_output("dvc", "config", "--local", SETTING, str(TEMPLATE.relative_to(".dvc")))


def offline_template(head: str) -> str:
    """Return the template for `dvc plots`, without `{scripts}`, which would load Vega from the network.

    The content security policy allows three scripts by digest, and no request but for images beside the page. What DVC
    writes in place of `{plot_divs}` is text to the end of the file, which plots.js reads.

    Args:
        head: comment with the versions of Vega and of the page.
    """
    scripts = [vega(), *((HERE / name).read_text(encoding="utf-8") for name in ("names.js", "plots.js"))]
    allowed = " ".join(f"'{digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src {allowed}"
    return f"""<!doctype html>
{head}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri 'none'; form-action 'none'">
{{refresh_tag}}
<title>DVC plots</title>
</head>
<body>
<main id="plots"></main>
<noscript><p>The plots need JavaScript.</p></noscript>
{"".join(f"<script>{script}</script>" for script in scripts)}
<plaintext id="given" hidden>
{{plot_divs}}
"""


if __name__ == "__main__":
    install_offline_template()
