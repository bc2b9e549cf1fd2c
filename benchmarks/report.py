"""The report of many experiments: time to build it, size of the page, time to sort it.

`make bench-report` creates a repository with EXPERIMENTS=500 synthetic experiments, runs `reprise report` in it and
opens the page in chromium.
"""

import copy
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright

import results
import synthetic_runs
from reprise.core.config import to_dict
from reprise.core.validation import read_recipe
from reprise.results.vcs import find_program, subprocess_env

EXPERIMENTS = int(os.environ.get("EXPERIMENTS", "500"))
RATES = (1e-5, 2e-5, 3e-5, 5e-5, 1e-4, 2e-4, 3e-4)
STEPS = 2000  # enough for the report to downsample the curves


def main() -> None:
    """Measure, print a table and write the results."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("bench: expected chromium: apt-get install chromium")
    recipe = to_dict(read_recipe())
    with TemporaryDirectory(prefix="reprise-report-") as name:
        folder = Path(name)
        print(f"bench: write {EXPERIMENTS} synthetic experiments", flush=True)
        make_repository(folder, recipe, EXPERIMENTS)
        print("bench: reprise report", flush=True)
        start = time.perf_counter()
        call = [find_program("reprise"), "report"]
        subprocess.run(
            call, cwd=folder, env={**subprocess_env(), "PYTHONPATH": str(synthetic_runs.ROOT / "src")}, check=True
        )
        build = time.perf_counter() - start
        page = folder / "report/index.html"
        measured: dict[str, Any] = {
            "experiments": EXPERIMENTS,
            "build_seconds": round(build, 1),
            "megabytes": round(page.stat().st_size / 1e6, 2),
            **in_browser(browser, page),
            "machine": results.machine(),
        }
    results.write("report", measured)
    print("\n| | |\n|---|---:|")
    for key, value in measured.items():
        if key != "machine":
            print(f"| {key.replace('_', ' ')} | {value} |")


def make_repository(folder: Path, recipe: dict[str, Any], experiments: int) -> None:
    """Create a git repository with results in a commit and experiments in refs/exps."""
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=folder, check=True)
    stream = subprocess.Popen(["git", "fast-import", "--quiet"], cwd=folder, stdin=subprocess.PIPE)
    assert stream.stdin is not None
    base = {**synthetic_runs.files(recipe, steps=STEPS), Path(".dvc/config"): b"", Path("dvc.yaml"): pipeline()}
    stream.stdin.write(commit("refs/heads/main", base, mark=1))
    stream.stdin.flush()
    for number, changed in enumerate(variants(recipe, experiments)):
        written = synthetic_runs.files(changed, steps=STEPS, constant_prediction=number % 50 == 49)
        stream.stdin.write(commit(f"refs/synthetic/run-{number:03}", written, start=":1"))
    stream.stdin.close()
    if stream.wait():
        sys.exit("bench: git fast-import failed")
    subprocess.run(["git", "reset", "--quiet", "--hard"], cwd=folder, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/synthetic"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    base_ref = f"refs/exps/{head[:2]}/{head[2:].strip()}"
    refs = [f"create {base_ref}/{name} {revision}" for revision, name in map(str.split, listed.stdout.splitlines())]
    subprocess.run(["git", "update-ref", "--stdin"], cwd=folder, input="\n".join(refs) + "\n", text=True, check=True)


def variants(recipe: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Yield recipes with varied learning rates, batch sizes and epochs, five seeds each."""
    for number in range(count):
        changed = copy.deepcopy(recipe)
        group, seed = divmod(number, 5)
        changed["seed"] = 42 + seed
        changed["train"] |= {
            "learning_rate": RATES[group % len(RATES)],
            "batch_size": (16, 32, 64)[group // len(RATES) % 3],
            "epochs": 1 + group // (3 * len(RATES)) % 5,
        }
        yield changed


def commit(ref: str, files: dict[Path, bytes], *, mark: int | None = None, start: str = "") -> bytes:
    """Return a commit in the format of `git fast-import`."""
    lines = [f"commit {ref}\n".encode()]
    if mark:
        lines.append(f"mark :{mark}\n".encode())
    lines.append(b"committer Bench <bench@example.org> 1764000000 +0000\ndata 5\nTrain\n")
    if start:
        lines.append(f"from {start}\n".encode())
    for path, content in files.items():
        lines.append(f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
    return b"".join(lines) + b"\n"


def pipeline() -> bytes:
    """Read this repository's dvc.yaml."""
    return (synthetic_runs.ROOT / "dvc.yaml").read_bytes()


def in_browser(program: str, page: Path) -> dict[str, float]:
    """Return the seconds until all charts are drawn, and the slowest sort and filter in ms."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_function("document.documentElement.dataset.drawn === 'all'")
        drawn = time.perf_counter() - start
        # Asking for a position makes the browser lay out the page, so that layout counts too.
        slowest = tab.evaluate(
            """() => {
                const timed = (act) => {
                    const start = performance.now();
                    act();
                    document.querySelector("#table tbody").getBoundingClientRect();
                    return performance.now() - start;
                };
                const buttons = [...document.querySelectorAll("#table thead button")];
                const sorts = buttons.flatMap((button) => [timed(() => button.click()), timed(() => button.click())]);
                const filter = document.getElementById("filter");
                const filters = ["run-1", "accuracy>0.8", "seed=43 epochs=2", ""].map((text) =>
                    timed(() => { filter.value = text; filter.dispatchEvent(new Event("input")); }));
                document.getElementById("more").click();
                const allRows = buttons.map((button) => timed(() => button.click()));
                return [sorts, filters, allRows].map((times) => Math.max(...times));
            }"""
        )
        browser.close()
    names = [f"slowest_{what}_milliseconds" for what in ("sort", "filter", "sort_of_all_rows")]
    return {"open_seconds": round(drawn, 2)} | {name: round(each, 1) for name, each in zip(names, slowest, strict=True)}


if __name__ == "__main__":
    main()
