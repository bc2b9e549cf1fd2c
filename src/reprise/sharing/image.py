"""CycloneDX bill of materials of the Debian packages of an image, which the lock files do not name.

Only a process in the image can list them. So `reprise export` writes it there, and `reprise verify` compares it there.
"""

import json
import os
import platform
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")


def current_image_sbom(image: str | None) -> str | None:
    """List the Debian packages of the image that this process runs in.

    Args:
        image: the one that a run was made in, as in provenance.json.

    Returns:
        The text of the bill; None if this process is not in that image, or the image is not of Debian's kind.
    """
    if not image or image != os.environ.get("REPRISE_IMAGE") or not DPKG_STATUS.is_file():
        return None
    content = image_sbom(image, DPKG_STATUS.read_text(encoding="utf-8"), platform.freedesktop_os_release())
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def image_sbom(image: str, status: str, release: Mapping[str, str]) -> dict[str, Any]:
    """Describe an image by its packages.

    Args:
        image: name and digest, `NAME@DIGEST`.
        status: content of dpkg's status file.
        release: content of /etc/os-release.
    """
    name, _, digest = image.partition("@")
    packages = debian_packages(status, release)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{image}\n{status}").urn,  # equal image, equal number
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": name, "version": digest}},
        "components": [
            {
                "type": "operating-system",
                "bom-ref": "os",
                "name": release["ID"],
                "version": release.get("VERSION_ID", ""),
            },
            *packages,
        ],
        "dependencies": [{"ref": "image", "dependsOn": ["os", *(package["bom-ref"] for package in packages)]}],
    }


def debian_packages(status: str, release: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a component for each installed package of dpkg's status file, in the order of their names."""
    components = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, flags=re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):  # others were removed, or are half installed
            continue
        name, version = fields["Package"], fields["Version"]
        distribution = f"{release['ID']}-{release['VERSION_ID']}" if "VERSION_ID" in release else release["ID"]
        qualifiers = f"arch={fields['Architecture']}&distro={distribution}"
        purl = f"pkg:deb/{release['ID']}/{quote(name, '')}@{quote(version, ':')}?{qualifiers}"
        components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return sorted(components, key=lambda component: component["purl"])
