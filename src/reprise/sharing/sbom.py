"""CycloneDX bill of materials of the locked environment (cyclonedx.org/docs/1.6/json)."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from reprise.sharing.record import Record


def sbom(record: Record, name: str, locks: Mapping[str, str]) -> dict[str, Any]:
    """List the packages with which a model was trained, each with the digests of the files that its lock accepts.

    Args:
        record: of the exported folder.
        name: of the model.
        locks: content of each lock file, in pip's format.
    """
    model = {
        "type": "machine-learning-model", "bom-ref": "model", "name": name, "version": record.commit,
        "hashes": [
            {"alg": "SHA-256", "content": record.files[file]}
            for file in record.model if file.endswith(".safetensors")
        ],
    }  # fmt: skip
    packages = [package for lock in locks.values() for package in locked_packages(lock)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(locks.values())).urn,  # equal locks, equal number
        "version": 1,
        "metadata": {"component": model},
        "components": packages,
        "dependencies": [{"ref": "model", "dependsOn": [package["bom-ref"] for package in packages]}],
    }


def locked_packages(lock: str) -> list[dict[str, Any]]:
    """Return a component for each package of a lock file in pip's format."""
    components = []
    for name, version, options in re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;\\]+)((?:.*\\\n)*.*)", lock, flags=re.MULTILINE
    ):
        purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version.replace('+', '%2B')}"
        hashes = [
            {"alg": "SHA-256", "content": digest} for digest in re.findall("--hash=sha256:([0-9a-f]{64})", options)
        ]
        # The lock accepts one file per Python and architecture, so the digests are of the distributions.
        components.append(
            {
                "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                "externalReferences": [{"type": "distribution", "url": purl, "hashes": hashes}],
            }
        )  # fmt: skip
    return components
