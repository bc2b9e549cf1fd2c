"""Format the provenance of a run for the report."""

from typing import Any

from reprise.report.run import ReportRun
from reprise.results.run import NOT_RECORDED

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets")


def provenance_rows(run: ReportRun) -> list[tuple[str, str]]:
    """Return name and value of each known fact: code, software, hardware, digests of inputs and outputs."""
    provenance = run.result.provenance
    dirty = " with uncommitted changes" if provenance.get("dirty") else ""
    packages = [(name, provenance.get(f"environment.packages.{name}")) for name in PACKAGES]
    pairs: list[tuple[str, Any]] = [
        ("edited after the run", ", ".join(run.result.edited)),
        ("commit", run.commit),
        ("code", f"{provenance['commit']}{dirty}" if provenance.get("commit") else None),
        ("started", provenance.get("started", NOT_RECORDED)),
        ("hardware", provenance.get("environment.hardware")),
        ("devices", ", ".join(provenance.get("devices") or [])),
        ("cpu_capability", provenance.get("cpu_capability")),
        ("driver", provenance.get("driver")),
        ("processes", provenance.get("processes")),
        ("threads per process", provenance.get("threads")),
        ("precision", provenance.get("precision")),
        ("image", provenance.get("image")),
        ("Python", provenance.get("environment.python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages if version)),
        *(
            (f"lock {key.removeprefix('environment.locks.')}", provenance[key])
            for key in provenance
            if ".locks." in key
        ),
        *(
            (f"{title}, {key.removeprefix(f'{prefix}.')}", provenance[key])
            for prefix, title in (("data", "data"), ("pretrained", "pretrained weights"), ("weights", "weights"))
            for key in provenance
            if key.startswith(f"{prefix}.")
        ),
    ]
    return [(name, str(value)) for name, value in pairs if value not in (None, "")]
