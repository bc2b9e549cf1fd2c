"""`reprise attestations`: who rebuilt an exported model, on what, with which verdict, and whether that is signed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.results.verdict import Verdict
from reprise.sharing.folder import exported_files
from reprise.sharing.record import ATTESTATIONS, COPIED, RECORD, STANDARD_FORMS, file_digests
from reprise.sharing.statement import fingerprint, open_envelope, read_public_key
from reprise.sharing.verdict import PREDICATE_TYPE

VERDICTS = {str(verdict): verdict for verdict in Verdict}


@dataclass(frozen=True)
class Attestation:
    """What a file in DIR/attestations/ states.

    Attributes:
        when: when the model was rebuilt, as the signer says.
        fingerprint: of the signer's key.
        devices: where it was rebuilt.
        verdict: of the worst output.
        holds: whether the signature is of that key over these bytes.
        subjects: SHA-256 of each file of the model that it is about, by name.
    """

    when: str
    fingerprint: str
    devices: str
    verdict: str
    holds: bool
    subjects: dict[str, str]


def list_attestations(folder: Path, trusted: Path | None) -> bool:
    """Print the attestations of an exported folder.

    Args:
        folder: the exported folder.
        trusted: folder of public keys; None to trust all.

    Returns:
        Whether one counts: it holds, is about the files that are here, and its key is trusted.

    Raises:
        UserError: the folder is no exported one, or a file in `trusted` is no public key.
    """
    if not (folder / RECORD).is_file():
        raise UserError("not found", file=folder / RECORD, expected="a folder of `reprise export`")
    model = file_digests(folder, {*exported_files(folder)} - {*COPIED, *STANDARD_FORMS})
    names = trusted_keys(trusted) if trusted else None
    files = sorted((folder / ATTESTATIONS).glob("*.json"))
    if not files:
        echo(f"attestations: none in {folder / ATTESTATIONS}; `reprise verify {folder} --attest KEY` adds one")
        return False
    count = 0
    for file in files:
        try:
            found = read_attestation(file)
        except UserError as error:  # it hides no other
            echo(error)
            continue
        name = None if names is None else names.get(found.fingerprint, "not trusted")
        echo(f"{found.when}: {found.verdict}")
        echo(f"  on         {found.devices}")
        echo(f"  key        {found.fingerprint[:16]}{f', {name}' if name else ''}")
        echo(f"  signature  {'holds' if found.holds else 'DOES NOT HOLD'}")
        current = found.subjects == model  # the folder has these files, and no other
        echo(f"  about      {'these weights' if current else 'OTHER WEIGHTS'}")
        count += found.holds and current and (names is None or found.fingerprint in names)
    echo(
        f"attestations: {count} of {len(files)} count: signed, about these weights{', by a trusted key' * bool(names)}"
    )
    return bool(count)


def trusted_keys(folder: Path) -> dict[str, str]:
    """Return the names of the public keys in a folder by their fingerprints.

    Raises:
        UserError: there is none, or a file is not a public key.
    """
    keys = {}
    for file in sorted(folder.glob("*.p*")):
        try:
            keys[fingerprint(read_public_key(file.read_bytes()))] = file.stem
        except (OSError, ValueError):
            raise UserError("not a public key", file=file, expected="a PEM file of `openssl pkey -pubout`") from None
    if not keys:
        raise UserError("no public key", file=folder, expected="a folder with files such as mine.pub or mine.pem")
    return keys


def read_attestation(file: Path) -> Attestation:
    """Read a signed verdict, a DSSE envelope.

    Raises:
        UserError: it is not a signed verdict.
    """
    try:
        signed = open_envelope(json.loads(file.read_bytes()))
        content, stated = signed.content, signed.content["predicate"]
        if content["predicateType"] != PREDICATE_TYPE:
            raise ValueError(content["predicateType"])
        return Attestation(
            when=str(stated["timeVerified"]),
            fingerprint=signed.fingerprint,
            devices=describe_place(stated["environment"]),
            verdict=str(max(VERDICTS[verdict] for verdict in stated["verdicts"].values())),
            holds=signed.holds,
            subjects={str(each["name"]): str(each["digest"]["sha256"]) for each in content["subject"]},
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        expected = "what `reprise verify DIR --attest KEY` wrote"
        raise UserError("not a signed verdict", file=file, expected=expected) from None


def describe_place(environment: Mapping[str, Any]) -> str:
    """Describe where a model was rebuilt: devices, instruction set, threads, software."""
    devices = ", ".join(map(str, environment["devices"]))
    return (
        f"{devices}, {environment['cpuCapability']}, {environment['threads']} threads, Python {environment['python']}"
    )
