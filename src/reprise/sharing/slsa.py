"""SLSA provenance of an exported model (slsa.dev/spec/v1.0/provenance), as an in-toto statement without signature."""

from collections.abc import Mapping
from typing import Any

from reprise.core.config import PARAMS
from reprise.sharing.record import Record, digest_name
from reprise.sharing.statement import statement

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
# The build is `dvc repro` in the root of the repository at a commit: this page describes it.
BUILD_TYPE = "https://dvc.org/doc/command-reference/repro"


def slsa_provenance(record: Record, session: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how the model was built.

    Args:
        record: of the exported folder; its `files` have the model's.
        session: the last session in metrics/provenance.json.
    """
    environment = record.run["environment"]
    locks = environment["locks"]
    folder = f"docker/{environment['hardware']}"
    source = source_uri(record)
    dependencies = [
        {"uri": source, "digest": {"gitCommit": record.commit}},
        *({"name": f"{folder}/{name}", "digest": {"sha256": digest}} for name, digest in locks.items() if digest),
        # The digest of a folder is that of the list of its files, so it has a name of its own.
        *({"name": path, "digest": {digest_name(digest): digest}} for path, digest in record.run["data"].items()),
    ]
    name, _, digest = (environment["image"] or "").partition("@sha256:")
    if digest:
        dependencies.append({"name": name, "digest": {"sha256": digest}})
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "source": source, "commit": record.commit, "command": "dvc repro",
                "recipe": {"name": PARAMS.name, "digest": {"sha256": record.files[PARAMS.name]}},
            },
            "internalParameters": {key: session[key] for key in ("processes", "threads", "precision", "devices")},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            # The software that ran is the repository's, in the environment of its locks: nobody vouches for the host.
            "builder": {"id": f"{source}#{folder}"},
            "metadata": {"startedOn": session["started"]},
        },
    }  # fmt: skip
    return statement({name: record.files[name] for name in record.model}, PREDICATE_TYPE, predicate)


def source_uri(record: Record) -> str:
    """Return the commit as a URI in SPDX's form, `git+URL@COMMIT`; without a URL it names the commit alone."""
    url = record.repository
    if url.startswith("git@"):
        url = "ssh://" + url.replace(":", "/", 1)
    return f"git+{url}@{record.commit}" if url else f"git:{record.commit}"
