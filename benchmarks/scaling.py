"""What more devices give: `make bench-scaling`.

One core and the link between processes are measured, cost.py says what 1, 2 and 4 processes should take then, and
`reprise train` with so many shows what they take. The same functions go on to 512 devices and to faster links.
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
from cost import FP32, Device, Link, efficiency, sharded_volume, step_seconds, volume
from folders import PAIRS, Recipe, default_recipe, lay_out, pairs_of, prepare_pairs, reviews
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import METRICS, PREPARED, PRETRAINED

# Pairs of reviews cut to 32 tokens, which nearly all of them have: a step costs the same whichever rows it holds.
MAX_LENGTH, PAIRS_USED = 32, 3000
BATCH_SIZE = 32
LOADS = (2, 4, 8, 16, 32)  # rows of a step, on one core
PROCESSES = (1, 2, 4)
STEPS = 60
SIZES = (4096, 4 * 2**20, 64 * 2**20)  # bytes that are summed to measure the link
# Where the model goes on: links in bytes a second and seconds, by their nominal speed.
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
        place = lay_out(scratch / "prepared", of_steps(recipe, BATCH_SIZE), Path(), [PRETRAINED])
        prepare_pairs(place, islice(pairs_of(reviews()), PAIRS_USED))
        loads = {}
        for rows in LOADS:
            print(f"bench: one process, {rows} rows a step", flush=True)
            (loads[rows],) = train(scratch, place, of_steps(recipe, rows))
        print(f"bench: {cores} such processes beside each other", flush=True)
        beside = max(train(scratch, place, of_steps(recipe, BATCH_SIZE), at_once=cores))
        measured = {}
        for processes in PROCESSES:
            print(f"bench: {BATCH_SIZE} rows a step, processes: {processes}", flush=True)
            (measured[processes],) = train(scratch, place, of_steps(recipe, BATCH_SIZE), processes=processes)
        links = {processes: all_reduce_seconds(processes) for processes in PROCESSES[1:]}
    device, link, gradients = fit_device(loads), fit_link(links), gradients_of(PRETRAINED / "model")
    content: dict[str, Any] = {
        "machine": results.machine(),
        "gradients": gradients,
        "load_seconds": loads,
        "device": vars(device),
        "crowding": round(beside / loads[BATCH_SIZE], 3),
        "all_reduce_seconds": links,
        "link": vars(link),
        "measured_seconds": measured,
    }
    content["checked"] = check(content, cores)
    results.write("scaling", content)
    show_checked(console, content)
    show_derived(console, device, gradients)


def of_steps(recipe: Recipe, rows: int) -> Recipe:
    """The recipe on pairs of one length, in steps of so many rows, long enough to be timed."""
    train = recipe["train"] | {"batch_size": rows, "micro_batch_size": None, "max_length": MAX_LENGTH}
    return recipe | {"task": PAIRS, "train": train | {"max_steps": STEPS, "checkpoint_every": 1000}}


def train(scratch: Path, place: Path, recipe: Recipe, *, processes: int = 1, at_once: int = 1) -> list[float]:
    """Have `reprise train` train, in several folders at once if need be, every process with one thread.

    Returns:
        The median seconds of a step, of each training.

    Raises:
        UserError: one failed; its own words stand above.
    """
    folders = [
        lay_out(Path(tempfile.mkdtemp(dir=scratch)) / "at", recipe, place, [PREPARED, PRETRAINED])
        for _ in range(at_once)
    ]
    command = [sys.executable, "-m", "reprise", "train", "--processes", str(processes)]
    running = [
        subprocess.Popen(command, cwd=folder, env=os.environ | ONE_THREAD, stdout=sys.stderr) for folder in folders
    ]
    codes = [each.wait() for each in running]
    if any(codes):
        raise UserError("`reprise train` failed, see above; expected it to train on pairs")
    return [float(read_json(folder / METRICS / "speed.json")["median_step_seconds"]) for folder in folders]


def all_reduce_seconds(processes: int) -> dict[int, float]:
    """The least seconds of summing each of SIZES bytes over processes on this machine, as training sums gradients."""
    print(f"bench: the link between {processes} processes", flush=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    run = subprocess.run(
        [*command, str(Path(__file__).with_name("summing.py")), *map(str, SIZES)],
        env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise UserError("summing.py failed, see above; expected it to sum over processes")
    return {int(size): seconds for size, seconds in json.loads(run.stdout).items()}


def fit_device(loads: dict[int, float]) -> Device:
    """The device whose steps of so many rows take these seconds, by least squares of the relative error."""
    rows, seconds = np.array(list(loads)), np.array(list(loads.values()))
    per_row, fixed = np.polyfit(rows, seconds, 1, w=1 / seconds)
    return Device(fixed=float(fixed), per_row=float(per_row))


def fit_link(measured: dict[int, dict[int, float]]) -> Link:
    """The link by which the sums took these seconds: of each number of processes, by size in bytes."""
    terms, seconds = [], []
    for processes, by_size in measured.items():
        for size, took in by_size.items():
            terms.append([volume(size, processes) / took, 2 * (processes - 1) / took])
            seconds.append(1.0)  # both sides divided by what was measured: the relative error counts
    (a_byte, latency), *_ = np.linalg.lstsq(np.array(terms), np.array(seconds))
    return Link(bandwidth=float(1 / a_byte), latency=float(latency))


def gradients_of(model: Path) -> int:
    """The bytes of the gradients of a model's weights, which are summed in fp32."""
    with safe_open(model / "model.safetensors", "numpy") as weights:
        return sum(FP32 * int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())  # noqa: SIM118


def check(content: dict[str, Any], cores: int) -> list[dict[str, float]]:
    """What the model says of 1, 2 and 4 processes on these cores, beside what was measured.

    Processes beside each other slow each other (`crowding`), and where they are more than the cores they take turns.
    """
    device, link = Device(**content["device"]), Link(**content["link"])
    checked = []
    for processes, seconds in content["measured_seconds"].items():
        slower = max(1.0, processes / cores) * (content["crowding"] if processes > 1 else 1.0)
        crowded = Device(fixed=device.fixed * slower, per_row=device.per_row * slower)
        expected = step_seconds(crowded, link, gradients=content["gradients"], batch_size=BATCH_SIZE, devices=processes)
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


def show_checked(console: Console, content: dict[str, Any]) -> None:
    """Print what was measured and how far the model is from it."""
    device, link = Device(**content["device"]), Link(**content["link"])
    console.print(
        f"A core takes {device.fixed * 1e3:.0f} ms a step and {device.per_row * 1e3:.1f} ms a row of {MAX_LENGTH} "
        f"tokens, {content['crowding']:.2f} times that beside others. Gradients: {content['gradients'] / 1e6:.0f} MB; "
        f"the link carries {link.bandwidth / 1e9:.2g} GB/s, with {link.latency * 1e6:.0f} µs a message.",
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
        for row in content["checked"]
    ]
    show(
        console,
        f"{BATCH_SIZE} rows a step",
        ("processes", "expected ms", "measured ms", "error", "of the cores' work"),
        rows,
    )


def show_derived(console: Console, device: Device, gradients: int) -> None:
    """Print what many devices like this core would do, a row of each number of them."""
    for batch_size in (BATCH_SIZE, LARGE_BATCH):
        rows = []
        for devices in DEVICES:
            if devices > batch_size:
                continue  # there would be nothing to do for some
            sent = f"{volume(gradients, devices) / 1e6:.0f}", f"{sharded_volume(gradients, devices) / 1e6:.0f}"
            told = (
                f"{step_seconds(device, link, **at) * 1e3:.0f} ({efficiency(device, link, **at):.0%})"
                for link in LINKS.values()
                for at in [{"gradients": gradients, "batch_size": batch_size, "devices": devices}]
            )
            rows.append((f"{devices}", *sent, *told))
        headings = ("devices", "MB sent", "sharded", *(f"ms a step, {name}" for name in LINKS))
        show(console, f"Derived: {batch_size} rows a step", headings, rows)


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
