"""`dvc plots show` without the network, by the page that DVC is given."""

import re
from pathlib import Path

from reprise.report.dvc_plots import TEMPLATE
from tiny import Run

OFFLINE = ("python", "-m", "reprise.report.dvc_plots")


def addresses(page: str) -> list[str]:
    """What a browser would fetch for a page."""
    return re.findall(
        r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    )


def test_dvc_s_plots_fetch_nothing_and_git_sees_nothing_of_it(served: Path, run: Run) -> None:
    run(served, "dvc", "plots", "show")
    assert any("https://" in address for address in addresses((served / "dvc_plots/index.html").read_text()))
    run(served, *OFFLINE)
    shown = run(served, "dvc", "plots", "show").stdout.strip()
    page = (served / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert shown == (served / "dvc_plots/index.html").as_uri()
    assert addresses(page) == []
    assert page.count("vegaEmbed('#") == 5  # what dvc.yaml draws
    assert "{plot_divs}" not in page
    assert run(served, "git", "status", "--short").stdout == ""


def test_what_is_done_is_not_done_again_and_a_user_s_own_page_stays(served: Path, run: Run) -> None:
    (served / ".dvc/mine.html").write_text("<p>mine</p>{plot_divs}")
    run(served, "dvc", "config", "--local", "plots.html_template", "mine.html")
    run(served, *OFFLINE)
    made = (served / TEMPLATE).stat().st_mtime_ns
    assert run(served, "dvc", "config", "plots.html_template").stdout == "mine.html\n"
    run(served, *OFFLINE)
    assert (served / TEMPLATE).stat().st_mtime_ns == made
    (served / TEMPLATE).write_text("of another version")
    run(served, *OFFLINE)
    assert "vegaEmbed" in (served / TEMPLATE).read_text(encoding="utf-8")
