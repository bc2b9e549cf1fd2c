"""Make `dvc plots show` work offline: an HTML template for DVC that contains Vega's JavaScript.

DVC's own template loads Vega from the network whenever the page is opened. `make setup` and `reprise report` write
another one and set it in .dvc/config.local. Neither file is committed: a megabyte of JavaScript cannot be reviewed, and
DVC fails if the configured template is missing.
"""

from importlib.metadata import version
from pathlib import Path

from reprise.core.files import atomic_file
from reprise.report.vega import vega
from reprise.results.vcs import check_output, try_output

TEMPLATE = Path(".dvc/plots/page.html")
SETTING = "plots.html_template"


def install_offline_template() -> None:
    """Write the template and configure DVC to use it, unless the user configured another template."""
    head = f"<!-- with Vega from vl-convert-python {version('vl-convert-python')} -->"
    if TEMPLATE.is_file() and head in TEMPLATE.read_text(encoding="utf-8"):
        return
    with atomic_file(TEMPLATE) as partial:
        partial.write_text(offline_template(head), encoding="utf-8")
    if not try_output("dvc", "config", SETTING):
        check_output("dvc", "config", "--local", SETTING, str(TEMPLATE.relative_to(".dvc")))


def offline_template(head: str) -> str:
    """Return the template for `dvc plots`, without `{scripts}`, which would load Vega from the network.

    Args:
        head: comment with the version of Vega.
    """
    return f"""<!doctype html>
{head}
<html lang="en">
<head>
<meta charset="utf-8">
{{refresh_tag}}
<title>DVC plots</title>
<script>{vega()}</script>
</head>
<body>
{{plot_divs}}
</body>
</html>
"""


if __name__ == "__main__":
    install_offline_template()
