"""`dvc plots show` without the network: a page for DVC to fill in, with Vega's JavaScript in it.

DVC's own page fetches Vega from the network whenever it is opened. `make setup` and `reprise report` make another and
name it in .dvc/config.local; neither is committed, since JavaScript of a megabyte is nothing to review, and DVC fails
where it is told of a page that is not there.
"""

from importlib.metadata import version
from pathlib import Path

from reprise.core.files import atomic_file
from reprise.report.vega import vega
from reprise.results.vcs import check_output, try_output

TEMPLATE = Path(".dvc/plots/page.html")
SETTING = "plots.html_template"


def install_offline_template() -> None:
    """Write DVC's page and have DVC use it, unless that is done or the user has named a page of their own."""
    head = f"<!-- with Vega from vl-convert-python {version('vl-convert-python')} -->"
    if TEMPLATE.is_file() and head in TEMPLATE.read_text(encoding="utf-8"):
        return
    with atomic_file(TEMPLATE) as partial:
        partial.write_text(offline_template(head), encoding="utf-8")
    if not try_output("dvc", "config", SETTING):
        check_output("dvc", "config", "--local", SETTING, str(TEMPLATE.relative_to(".dvc")))


def offline_template(head: str) -> str:
    """What `dvc plots` fills in; without `{scripts}`, which would be the addresses that it fetches Vega from."""
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
