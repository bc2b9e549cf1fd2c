"""The descriptions of a run that other programs read. They follow from the exported folder and its commit.

So `reprise verify` writes them again and compares, except Croissant's, for which it would need the prepared data, and
the packages of an image, unless it runs in that image. A change of their content needs another `SCHEMA` of the record.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from reprise.core.config import PARAMS
from reprise.core.errors import UserError
from reprise.core.files import read_json
from reprise.core.paths import PROVENANCE
from reprise.core.validation import read_recipe
from reprise.hardware import HARDWARE_DIR, LOCKS
from reprise.results.run import FileReader
from reprise.sharing.eval_results import eval_results
from reprise.sharing.image import current_image_sbom
from reprise.sharing.record import CRATE, EVAL_RESULTS, IMAGE_SBOM, SBOM, SLSA, Record
from reprise.sharing.ro_crate import ro_crate
from reprise.sharing.sbom import sbom
from reprise.sharing.slsa import slsa_provenance


def standard_forms(folder: Path, record: Record, evaluated: Mapping[str, Any], read: FileReader) -> dict[str, str]:
    """Write down provenance, bill of materials, results and, with the digests of all others, the RO-Crate.

    Args:
        folder: the exported folder, with recipe and provenance.
        record: of it, with the digests of its files.
        evaluated: content of metrics/evaluate.json.
        read: returns the content of a file of the commit.

    Returns:
        The text of each file, by path.
    """
    recipe, session = read_recipe(folder / PARAMS), read_json(folder / PROVENANCE.name)["sessions"][-1]
    name, hardware = f"{recipe.model.name}-{recipe.task.name}", session["environment"]["hardware"]
    locks = {lock: (read(HARDWARE_DIR / hardware / lock) or b"").decode() for lock in LOCKS}
    others = {path: digest for path, digest in record.files.items() if path != CRATE}
    forms: dict[str, Any] = {
        SLSA: slsa_provenance(record, session),
        SBOM: sbom(record, name, locks),
        CRATE: ro_crate(replace(record, files=others), name, session),
    }
    texts = {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in forms.items()}
    if entries := eval_results(recipe, evaluated, session["started"], record.repository):
        stream = io.StringIO()
        YAML().dump(entries, stream)
        texts[EVAL_RESULTS] = stream.getvalue()
    return texts


def form_problems(folder: Path, record: Record, evaluated: Mapping[str, Any], read: FileReader) -> Iterator[UserError]:
    """Compare the forms in an exported folder with what follows from the folder and the commit."""
    expected = standard_forms(folder, record, evaluated, read)
    compared, image = [SLSA, SBOM, CRATE, EVAL_RESULTS], record.run["environment"]["image"]
    packages = current_image_sbom(image)
    if (folder / IMAGE_SBOM).is_file() and (packages or not image):
        compared.append(IMAGE_SBOM)
    if packages:
        expected[IMAGE_SBOM] = packages
    for path in compared:
        found = (folder / path).read_text("utf-8", errors="replace") if (folder / path).is_file() else None
        if found != expected.get(path):
            problem = f"not what follows from commit {record.commit[:12]}"
            yield UserError(problem, file=folder / path, expected="what `reprise export` wrote there")
