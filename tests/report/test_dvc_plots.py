"""`dvc plots show` offline, with the template for DVC."""

import re
from pathlib import Path

from reprise.report.dvc_plots import TEMPLATE
from tiny import Run

OFFLINE = ("python", "-m", "reprise.report.dvc_plots")


def addresses(page: str) -> list[str]:
    """Return the addresses that a browser would load."""
    return re.findall(
        r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    )


def test_dvc_plots_load_nothing_and_leave_git_clean(served: Path, run: Run) -> None:
    run(served, "dvc", "plots", "show")
    assert any("https://" in address for address in addresses((served / "dvc_plots/index.html").read_text()))
    run(served, *OFFLINE)
    shown = run(served, "dvc", "plots", "show").stdout.strip()
    page = (served / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert shown == (served / "dvc_plots/index.html").as_uri()
    assert addresses(page) == []
    assert page.count("vegaEmbed('#") == 5  # the plots of dvc.yaml
    assert "{plot_divs}" not in page
    assert run(served, "git", "status", "--short").stdout == ""


def test_the_template_is_written_once_and_the_users_own_is_kept(served: Path, run: Run) -> None:
    (served / ".dvc/mine.html").write_text("<p>mine</p>{plot_divs}")
    run(served, "dvc", "config", "--local", "plots.html_template", "mine.html")
    run(served, *OFFLINE)
    written = (served / TEMPLATE).stat().st_mtime_ns
    assert run(served, "dvc", "config", "plots.html_template").stdout == "mine.html\n"
    run(served, *OFFLINE)
    assert (served / TEMPLATE).stat().st_mtime_ns == written
    (served / TEMPLATE).write_text("of another version")
    run(served, *OFFLINE)
    assert "vegaEmbed" in (served / TEMPLATE).read_text(encoding="utf-8")
