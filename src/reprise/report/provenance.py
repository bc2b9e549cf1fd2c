"""Where a run comes from, to be read."""

from typing import Any

from reprise.report.run import ReportRun

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets")


def provenance_rows(entry: ReportRun) -> list[tuple[str, str]]:
    """Code, software, hardware, and the digests of what went in and came out: pairs of a name and what it is."""
    told = entry.result.provenance
    dirty = " and changes that were not committed" if told.get("dirty") else ""
    packages = [(name, told.get(f"environment.packages.{name}")) for name in PACKAGES]
    pairs: list[tuple[str, Any]] = [
        ("commit", entry.commit),
        ("code", f"{told['commit']}{dirty}" if told.get("commit") else None),
        ("started", told.get("started")),
        ("hardware", told.get("environment.hardware")),
        ("devices", ", ".join(told.get("devices") or [])),
        ("cpu_capability", told.get("cpu_capability")),
        ("driver", told.get("driver")),
        ("processes", told.get("processes")),
        ("threads of each", told.get("threads")),
        ("precision", told.get("precision")),
        ("image", told.get("image")),
        ("Python", told.get("environment.python")),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages if version)),
        *((f"lock {key.removeprefix('environment.locks.')}", told[key]) for key in told if ".locks." in key),
        *(
            (f"{what}, {key.removeprefix(f'{part}.')}", told[key])
            for part, what in (("data", "data"), ("pretrained", "pretrained weights"), ("weights", "weights"))
            for key in told
            if key.startswith(f"{part}.")
        ),
    ]
    return [(name, str(value)) for name, value in pairs if value not in (None, "")]
