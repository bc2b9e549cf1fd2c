"""`dvc plots show` offline, with the template for DVC."""

import re
from pathlib import Path

import pytest

from reprise.report.dvc_plots import TEMPLATE, install_offline_template
from tiny import Run

OFFLINE = ("python", "-m", "reprise.report.dvc_plots")


def addresses(page: str) -> list[str]:
    """Return the addresses that a browser would load."""
    return re.findall(
        r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    )


def test_dvc_plots_load_nothing_and_leave_git_clean(repo_copy: Path, run: Run) -> None:
    run(repo_copy, "dvc", "plots", "show")
    assert any("https://" in address for address in addresses((repo_copy / "dvc_plots/index.html").read_text()))
    run(repo_copy, *OFFLINE)
    shown = run(repo_copy, "dvc", "plots", "show").stdout.strip()
    page = (repo_copy / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert shown == (repo_copy / "dvc_plots/index.html").as_uri()
    assert addresses(page) == []
    assert page.count("vegaEmbed('#") == 7  # the plots of dvc.yaml
    assert "{plot_divs}" not in page
    assert run(repo_copy, "git", "status", "--short").stdout == ""


def test_the_template_is_written_once_and_the_users_own_is_kept(
    repo_copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_copy)
    (repo_copy / ".dvc/mine.html").write_text("<p>mine</p>{plot_divs}")
    run(repo_copy, "dvc", "config", "--local", "plots.html_template", "mine.html")
    install_offline_template()
    written = (repo_copy / TEMPLATE).stat().st_mtime_ns
    assert run(repo_copy, "dvc", "config", "plots.html_template").stdout == "mine.html\n"
    install_offline_template()
    assert (repo_copy / TEMPLATE).stat().st_mtime_ns == written
    (repo_copy / TEMPLATE).write_text("of another version")
    install_offline_template()
    assert "vegaEmbed" in (repo_copy / TEMPLATE).read_text(encoding="utf-8")
