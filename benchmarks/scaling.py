"""Scaling of data-parallel training: `make bench-scaling`.

One core and the link between processes are measured; comm_model.py predicts the step time of 1, 2 and 4 processes from
them, and `reprise train` measures it. The same model extrapolates to 512 devices and to faster links.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors import safe_open

import results
from comm_model import FP32, Device, Link, efficiency, sharded_volume, step_seconds, volume
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import METRICS, PREPARED, PRETRAINED
from workspaces import PAIRS, Recipe, default_recipe, make_workspace, pair_reviews, prepare_pairs, reviews

# Pairs of reviews truncated to 32 tokens, which nearly all of them have: every step costs the same.
MAX_LENGTH, PAIRS_USED = 32, 3000
BATCH_SIZE = 32
LOADS = (2, 4, 8, 16, 32)  # rows per step, on one core
PROCESSES = (1, 2, 4)
STEPS = 60
SIZES = (4096, 4 * 2**20, 64 * 2**20)  # bytes per all-reduce, to measure the link
# Links for the extrapolation, by nominal speed: bytes/s and seconds.
LINKS = {
    "1 Gb/s": Link(0.125e9, 100e-6),
    "10 Gb/s": Link(1.25e9, 50e-6),
    "100 Gb/s": Link(12.5e9, 10e-6),
}
DEVICES = (1, 8, 64, 512)
LARGE_BATCH = 4096
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure, print the tables, and write the results."""
    console, recipe = Console(highlight=False), default_recipe()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        scratch = Path(name)
        source = make_workspace(scratch / "prepared", timing_recipe(recipe, BATCH_SIZE), Path(), [PRETRAINED])
        prepare_pairs(source, islice(pair_reviews(reviews()), PAIRS_USED))
        loads = {}
        for rows in LOADS:
            print(f"bench: one process, {rows} rows per step", flush=True)
            (loads[rows],) = train(scratch, source, timing_recipe(recipe, rows))
        print(f"bench: {cores} such processes at the same time", flush=True)
        concurrent = max(train(scratch, source, timing_recipe(recipe, BATCH_SIZE), runs=cores))
        measured = {}
        for processes in PROCESSES:
            print(f"bench: {BATCH_SIZE} rows per step, processes: {processes}", flush=True)
            (measured[processes],) = train(scratch, source, timing_recipe(recipe, BATCH_SIZE), processes=processes)
        links = {processes: time_all_reduce(processes) for processes in PROCESSES[1:]}
    device, link, gradients = fit_device(loads), fit_link(links), gradient_bytes(PRETRAINED / "model")
    content: dict[str, Any] = {
        "machine": results.machine(),
        "gradient_bytes": gradients,
        "load_seconds": loads,
        "device": vars(device),
        "contention": round(concurrent / loads[BATCH_SIZE], 3),
        "all_reduce_seconds": links,
        "link": vars(link),
        "measured_seconds": measured,
    }
    content["check"] = check(content, cores)
    results.write("scaling", content)
    show_check(console, content)
    show_derived(console, device, gradients)


def timing_recipe(recipe: Recipe, rows: int) -> Recipe:
    """Return the recipe with pairs of one length and `rows` rows per step, for STEPS steps."""
    train = recipe["train"] | {"batch_size": rows, "micro_batch_size": None, "max_length": MAX_LENGTH}
    return recipe | {"task": PAIRS, "train": train | {"max_steps": STEPS}, "run": recipe["run"] | {"save_steps": 1000}}


def train(scratch: Path, source: Path, recipe: Recipe, *, processes: int = 1, runs: int = 1) -> list[float]:
    """Run `reprise train` in `runs` workspaces at the same time, one thread per process.

    Returns:
        The median seconds per step of each run.

    Raises:
        UserError: a run failed; its own message is on stderr.
    """
    folders = [
        make_workspace(Path(tempfile.mkdtemp(dir=scratch)) / "run", recipe, source, [PREPARED, PRETRAINED])
        for _ in range(runs)
    ]
    command = [sys.executable, "-m", "reprise", "train", "--processes", str(processes)]
    running = [
        subprocess.Popen(command, cwd=folder, env=os.environ | ONE_THREAD, stdout=sys.stderr) for folder in folders
    ]
    codes = [each.wait() for each in running]
    if any(codes):
        raise UserError("failed, see above", key="reprise train", expected="it to train on pairs")
    return [float(read_json(folder / METRICS / "speed.json")["median_step_seconds"]) for folder in folders]


def time_all_reduce(processes: int) -> dict[int, float]:
    """Return the minimum seconds of an all-reduce over processes, by size in bytes."""
    print(f"bench: the link between {processes} processes", flush=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("allreduce.py")), *map(str, SIZES)],
        env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise UserError("failed, see above", key="allreduce.py", expected="it to sum over processes")
    return {int(size): seconds for size, seconds in json.loads(run.stdout).items()}


def fit_device(loads: dict[int, float]) -> Device:
    """Fit a device to the seconds per step by rows, by least squares of the relative error."""
    rows, seconds = np.array(list(loads)), np.array(list(loads.values()))
    per_row, fixed = np.polyfit(rows, seconds, 1, w=1 / seconds)
    return Device(fixed=float(fixed), per_row=float(per_row))


def fit_link(measured: dict[int, dict[int, float]]) -> Link:
    """Fit a link to the seconds of all-reduces, by number of processes and size in bytes."""
    terms, seconds = [], []
    for processes, by_size in measured.items():
        for size, took in by_size.items():
            terms.append([volume(size, processes) / took, 2 * (processes - 1) / took])
            seconds.append(1.0)  # both sides are divided by the measured value, to minimise the relative error
    (seconds_per_byte, latency), *_ = np.linalg.lstsq(np.array(terms), np.array(seconds))
    return Link(bandwidth=float(1 / seconds_per_byte), latency=float(latency))


def gradient_bytes(model: Path) -> int:
    """Return the bytes of a model's gradients, which are summed in fp32."""
    with safe_open(model / "model.safetensors", "numpy") as weights:
        return sum(FP32 * int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118


def check(content: dict[str, Any], cores: int) -> list[dict[str, float]]:
    """Compare the cost model with the measured step time of 1, 2 and 4 processes.

    Concurrent processes slow each other down (`contention`), and more processes than cores share the cores.
    """
    device, link = Device(**content["device"]), Link(**content["link"])
    checked = []
    for processes, seconds in content["measured_seconds"].items():
        slowdown = max(1.0, processes / cores) * (content["contention"] if processes > 1 else 1.0)
        slowed = Device(fixed=device.fixed * slowdown, per_row=device.per_row * slowdown)
        gradients = content["gradient_bytes"]
        expected = step_seconds(slowed, link, gradients=gradients, batch_size=BATCH_SIZE, devices=processes)
        busy = min(processes, cores)
        checked.append(
            {
                "processes": processes,
                "expected_seconds": round(expected, 4),
                "measured_seconds": seconds,
                "error": round(expected / seconds - 1, 3),
                "efficiency": round(content["measured_seconds"][1] / (busy * seconds), 3),
            }
        )
    return checked


def show_check(console: Console, content: dict[str, Any]) -> None:
    """Print the measured step times and the error of the cost model."""
    device, link = Device(**content["device"]), Link(**content["link"])
    console.print(
        f"One core takes {device.fixed * 1e3:.0f} ms per step and {device.per_row * 1e3:.1f} ms per row of "
        f"{MAX_LENGTH} tokens, {content['contention']:.2f} times that with all cores in use. "
        f"Gradients: {content['gradient_bytes'] / 1e6:.0f} MB. Link: {link.bandwidth / 1e9:.2g} GB/s, "
        f"{link.latency * 1e6:.0f} µs per message.",
        soft_wrap=True,
    )
    rows = [
        (
            f"{row['processes']}",
            f"{row['expected_seconds'] * 1e3:.0f}",
            f"{row['measured_seconds'] * 1e3:.0f}",
            f"{row['error']:+.0%}",
            f"{row['efficiency']:.0%}",
        )
        for row in content["check"]
    ]
    show(
        console,
        f"{BATCH_SIZE} rows per step",
        ("processes", "expected ms", "measured ms", "error", "parallel efficiency"),
        rows,
    )


def show_derived(console: Console, device: Device, gradients: int) -> None:
    """Print the extrapolation to many devices like this core, one row per number of devices."""
    for batch_size in (BATCH_SIZE, LARGE_BATCH):
        rows = []
        for devices in DEVICES:
            if devices > batch_size:
                continue  # some devices would have no rows
            sent = f"{volume(gradients, devices) / 1e6:.0f}", f"{sharded_volume(gradients, devices) / 1e6:.0f}"
            step_times = (
                f"{step_seconds(device, link, **setup) * 1e3:.0f} ({efficiency(device, link, **setup):.0%})"
                for link in LINKS.values()
                for setup in [{"gradients": gradients, "batch_size": batch_size, "devices": devices}]
            )
            rows.append((f"{devices}", *sent, *step_times))
        headings = ("devices", "MB sent", "sharded", *(f"ms per step, {name}" for name in LINKS))
        show(console, f"Derived: {batch_size} rows per step", headings, rows)


def show(console: Console, title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table."""
    console.print(f"[bold]{title}[/bold]")
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"bench: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
