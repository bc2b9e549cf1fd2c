"""What `reprise export` writes for other programs is valid by each standard's own validator, and states the facts."""

import dataclasses
import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf.json_format import ParseDict
from huggingface_hub import parse_eval_result_entries
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementProto
from packageurl import PackageURL
from rocrate.rocrate import ROCrate

from reprise.commands.export import arrow_types
from reprise.core.validation import check_recipe
from reprise.sharing.croissant import croissant
from reprise.sharing.eval_results import eval_results
from reprise.sharing.image import DPKG_STATUS, current_image_sbom, debian_packages
from reprise.sharing.record import Record
from reprise.sharing.ro_crate import ro_crate
from reprise.sharing.sbom import locked_packages, sbom
from reprise.sharing.slsa import slsa_provenance, source_uri
from tiny import ROOT, tiny_recipe

LOCK = """\
numpy==2.4.6 \\
    --hash=sha256:{one} \\
    --hash=sha256:{two}
    # via pandas
torch==2.13.0+cpu \\
    --hash=sha256:{one}
""".format(one="1" * 64, two="2" * 64)


def test_the_provenance_is_a_statement_of_slsa_with_source_locks_and_data(
    record: Record, session: dict[str, Any]
) -> None:
    written = slsa_provenance(record, session)
    statement = ParseDict(written, StatementProto())
    Statement.copy_from_pb(statement).validate()
    ParseDict(written["predicate"], Provenance())  # an unknown field is an error
    assert [subject.name for subject in statement.subject] == ["config.json", "model.safetensors"]
    digests = written["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"gitCommit": "d" * 40} in [each.get("digest") for each in digests]
    assert {"docker/cpu/torch.txt", "data/raw", "data/own/reviews.csv"} <= {each.get("name") for each in digests}
    assert {"name": "reprise:cpu", "digest": {"sha256": "5" * 64}} in digests


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("https://example.org/a.git", "git+https://example.org/a.git@"),
        ("git@example.org:team/a.git", "git+ssh://git@example.org/team/a.git@"),
        ("", "git:"),
    ],
)
def test_the_source_is_a_uri_of_the_commit(record: Record, url: str, uri: str) -> None:
    assert source_uri(dataclasses.replace(record, repository=url)) == uri + "d" * 40


def test_the_bill_of_materials_is_valid_and_lists_every_locked_package(record: Record) -> None:
    locks = {name: (ROOT / f"docker/cpu/{name}").read_text() for name in ("torch.txt", "requirements.txt")}
    written = sbom(record, "tiny-reviews", locks)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(written)) is None
    pins = [pin for lock in locks.values() for pin in re.findall(r"^([a-z][^ =]*==[^ ]+)", lock, re.MULTILINE)]
    assert len(pins) > 100
    assert [f"{each['name']}=={each['version']}" for each in written["components"]] == pins
    assert all(each["externalReferences"][0]["hashes"] for each in written["components"])
    assert sbom(record, "tiny-reviews", locks) == written


def test_a_package_has_the_digests_of_its_lock_and_its_version_in_the_url() -> None:
    numpy, torch = locked_packages(LOCK)
    assert [each["content"][0] for each in numpy["externalReferences"][0]["hashes"]] == ["1", "2"]
    assert torch["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert len(torch["externalReferences"][0]["hashes"]) == 1


DEBIAN = {"ID": "debian", "VERSION_ID": "12"}
IMAGE = "reprise:cpu@sha256:" + "5" * 64


def package(name: str, status: str, version: str, architecture: str) -> str:
    fields = f"Package: {name}\nStatus: {status}\nSection: libs\nArchitecture: {architecture}\nVersion: {version}\n"
    return f"{fields}Description: what it does\n Version: of a description, not of the package\n\n"


def test_installed_packages_of_debian_have_name_version_and_architecture() -> None:
    status = (
        package("libstdc++6", "install ok installed", "12.2.0-14+deb12u1", "amd64")
        + package("git", "hold ok installed", "1:2.39.5-0+deb12u2", "amd64")
        + package("gone", "deinstall ok config-files", "1.0", "all")
        + package("broken", "install ok half-configured", "1.0", "all")
    )
    assert [each["purl"] for each in debian_packages(status, DEBIAN)] == [
        "pkg:deb/debian/git@1:2.39.5-0%2Bdeb12u2?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
    ]


@pytest.mark.skipif(not DPKG_STATUS.is_file(), reason="only Debian has dpkg's status file")
def test_the_bill_of_an_image_is_valid_and_lists_what_dpkg_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_IMAGE", IMAGE)
    text = current_image_sbom(IMAGE)
    assert text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    written = json.loads(text)
    system, *packages = written["components"]
    release = platform.freedesktop_os_release()
    assert (system["type"], system["name"]) == ("operating-system", release["ID"])
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Architecture} ${db:Status-Status}\n"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    parsed = [PackageURL.from_string(each["purl"]) for each in packages]
    assert [url.to_string() for url in parsed] == [each["purl"] for each in packages]
    assert {f"{url.name} {url.version} {url.qualifiers['arch']} installed" for url in parsed} == {
        line for line in listed if line.endswith(" installed")
    }
    assert len(packages) > 50
    assert written["dependencies"][0]["dependsOn"] == [each["bom-ref"] for each in written["components"]]
    assert written["metadata"]["component"]["version"] == "sha256:" + "5" * 64


@pytest.mark.parametrize("image", [None, IMAGE.replace("5", "6")])
def test_outside_of_the_image_of_the_run_its_packages_are_not_known(
    image: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_IMAGE", IMAGE)
    assert current_image_sbom(image) is None
    monkeypatch.delenv("REPRISE_IMAGE")
    assert current_image_sbom(IMAGE) is None


def test_the_data_are_valid_croissant_with_files_and_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    types = {"text": pa.string(), "label": pa.int64(), "input_ids": pa.list_(pa.int32()), "score": pa.float64()}
    schema = pa.schema(list(types.items()))
    with pa.OSFile(str(tmp_path / "train.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema):
        pass
    columns = arrow_types(tmp_path / "train.arrow")
    assert columns == {"text": "string", "label": "int64", "input_ids": "list<item: int32>", "score": "double"}
    recipe = check_recipe(tiny_recipe(), "test")
    files = {"train.arrow": (17, "1" * 64)}
    written = croissant(recipe, files, {"train": columns}, "https://example.org/a.git", "2026-11-29T17:00:00+00:00")
    metadata = mlcroissant.Dataset(jsonld=json.loads(json.dumps(written))).metadata
    assert [file.sha256 for file in metadata.distribution] == ["1" * 64]
    (train,) = metadata.record_sets
    assert {field.name.split("/")[-1]: field.repeated for field in train.fields} == {
        "text": None, "label": None, "input_ids": True, "score": None
    }  # fmt: skip
    assert [field.data_type for field in train.fields] == [bytes, int, int, float]
    assert "not standard" not in caplog.text


def test_a_run_is_a_workflow_run_crate(record: Record, session: dict[str, Any], tmp_path: Path) -> None:
    written = ro_crate(record, "tiny-reviews", session)
    (tmp_path / "ro-crate-metadata.json").write_text(json.dumps(written), encoding="utf-8")
    for name in (*record.files, "README.md"):
        (tmp_path / name).touch()
    crate = ROCrate(tmp_path)
    # The required rules of the profiles: w3id.org/ro/wfrun/process/0.5 and w3id.org/ro/wfrun/workflow/0.5.
    assert {each.id for each in crate.root_dataset["conformsTo"]} == {
        "https://w3id.org/ro/wfrun/process/0.5",
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    }
    assert crate.mainEntity.id == "dvc.lock"
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(crate.mainEntity.type)
    assert crate.mainEntity["programmingLanguage"].type == "ComputerLanguage"
    action = crate.root_dataset["mentions"]
    assert (action.type, action["instrument"].id) == ("CreateAction", "dvc.lock")
    assert {each.id for each in action["result"]} == set(record.model)
    assert {each.id for each in action["object"]} == {"params.yaml", "#data/raw", "#data/own/reviews.csv"}
    known = {entity["@id"] for entity in written["@graph"]}
    referred = set(re.findall(r'\{"@id": "([^"]+)"\}', json.dumps(written)))
    assert referred - known == {"https://w3id.org/ro/crate/1.1"}
    parts = {each.id for each in crate.root_dataset["hasPart"]}
    assert parts == {*record.files, "README.md"}


def test_results_on_a_dataset_of_the_hub_are_as_the_hub_reads_them() -> None:
    source = {"kind": "hub", "repo": "nyu-mll/glue", "config": "mrpc", "revision": "b" * 40}
    recipe = check_recipe(tiny_recipe(**{"task.source": source, "task.split": None}), "test")
    evaluated = {"split": "test", "accuracy": 0.75, "f1": 0.5, "ci95": {"accuracy": {}, "f1": {}}}
    written = eval_results(recipe, evaluated, "2026-11-29", "https://example.org/a.git")
    first, second = parse_eval_result_entries(written)
    assert (first.dataset_id, first.task_id, first.dataset_revision) == ("nyu-mll/glue", "mrpc", "b" * 40)
    assert (first.value, first.notes) == (0.75, "accuracy on the test split")
    assert (second.value, second.notes) == (0.5, "f1 (fresh) on the test split")
    assert first.source_url == "https://example.org/a.git"


def test_results_on_other_data_are_not_shown_on_the_hub() -> None:
    recipe = check_recipe(tiny_recipe(), "test")
    assert eval_results(recipe, {"split": "test", "accuracy": 0.75, "ci95": {"accuracy": {}}}, "", "") == []
