"""`reprise verify DIR` and `reprise attestations DIR`: each attack on an exported folder, and what finds it."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from typer.testing import CliRunner

from hub import COMMIT, LocalHub, serving, use_hub
from reprise.cli import app
from reprise.commands import verify_folder as module
from reprise.commands.attestations import list_attestations
from reprise.commands.export import export
from reprise.commands.verify_folder import verify_folder
from reprise.core.errors import UserError
from reprise.core.files import json_sha256, read_json, sha256, write_json
from reprise.core.paths import PROVENANCE
from reprise.results.run import RunResult, commit_reader, folder_reader, read_result
from reprise.results.vcs import check_output
from reprise.results.verdict import Verdict, grade_outputs
from reprise.sharing.folder import commit_problems
from reprise.sharing.record import CRATE, EVAL_RESULTS, IMAGE_SBOM, SBOM, SLSA, read_record
from reprise.sharing.statement import fingerprint, public_pem
from tiny import Run, flip_a_bit

URL = "https://example.org/team/reviews.git"
WEIGHTS = "model.safetensors"


@dataclass
class Published:
    """A published repository, and a folder that was exported from it.

    Attributes:
        root: holds all of it.
        clone: of the published repository, as a stranger has it; the current folder.
        model: the exported folder.
    """

    root: Path
    clone: Path
    model: Path

    def edit_record(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the record, as whoever forges a folder would: the digests are those of the changed files."""
        content = asdict(read_record(self.model))
        files = (name for name in content["files"] if (self.model / name).is_file())
        content["files"] = {name: sha256(self.model / name) for name in files}
        change(content)
        write_json(self.model / "reproduce.json", content)

    def problem(self, **options: Any) -> UserError:
        with pytest.raises(UserError) as refused:
            verify_folder(self.model, **options)
        return refused.value


@pytest.fixture(scope="module")
def published_once(trained_repo: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """A bare repository at URL, to which git maps it, a clone of it, and a folder exported from it. Do not change."""
    root = tmp_path_factory.mktemp("published")
    owner = Path(shutil.copytree(trained_repo, root / "owner", symlinks=True))
    run(root, "git", "clone", "-q", "--bare", "owner", "origin.git")
    run(owner, "git", "remote", "add", "origin", URL)
    run(owner, "git", "config", f"url.{root}/origin.git.insteadOf", URL)
    run(owner, "git", "fetch", "-q", "origin")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(owner)
        export(Path("../model"))
    return root


@pytest.fixture
def published(published_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Published:
    """A writable copy of the exported folder, and a clone; nothing is reproduced, unless the test says otherwise."""
    origin = published_once / "origin.git"
    run(tmp_path, "git", "clone", "-q", "-c", f"url.{origin}.insteadOf={URL}", "-c", "gc.auto=0", URL, "clone")
    model = Path(shutil.copytree(published_once / "model", tmp_path / "model"))
    monkeypatch.chdir(tmp_path / "clone")

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may run before the folder was checked")

    monkeypatch.setattr(module, "verify_commit", refuse)
    return Published(tmp_path, tmp_path / "clone", model)


@pytest.fixture
def reproduced(published: Published, published_once: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The same; the pipeline, which other tests run, gives the bits of the owner."""

    def reproduce(_: str, __: str, committed: RunResult) -> tuple[dict[str, Verdict], RunResult]:
        again = read_result(folder_reader(published_once / "owner"), "owner")
        return grade_outputs(committed, again, None), again

    monkeypatch.setattr(module, "verify_commit", reproduce)
    return published


def new_key(root: Path, name: str) -> Path:
    """Write a private key, and its public part to keys/."""
    key = ed25519.Ed25519PrivateKey.generate()
    file = root / f"{name}.key"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (root / "keys").mkdir(exist_ok=True)
    (root / f"keys/{name}.pub").write_text(public_pem(key.public_key()))
    return file


def test_an_exported_folder_names_all_that_a_stranger_needs(published: Published) -> None:
    record = read_record(published.model)
    assert (record.repository, record.missing) == (URL, [])
    assert record.commit == check_output("git", "rev-parse", "HEAD")
    assert record.files[WEIGHTS] == sha256(published.model / WEIGHTS)
    assert set(record.model) < set(record.files)
    assert {"data/raw", "models/pretrained", "data/prepared"} < set(record.run["data"])
    assert {"models/final", "metrics/evaluate.json", "predictions"} < set(record.run["outputs"])
    assert len(record.run["environment"]["locks"]["requirements.txt"]) == 64


def test_a_folder_that_agrees_with_its_commit_is_reproduced(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_folder(reproduced.model) is Verdict.IDENTICAL
    assert "recipe, dvc.lock and card agree with commit" in capsys.readouterr().out


def test_a_changed_byte_of_any_file_is_found(published: Published) -> None:
    names = sorted(read_record(published.model).files)
    assert len(names) > 10
    for name in names:
        content = (published.model / name).read_bytes()
        flip_a_bit(published.model / name)
        assert published.problem().file == str(published.model / name)
        (published.model / name).write_bytes(content)


def test_a_file_that_is_missing_or_was_added_is_found(published: Published) -> None:
    (published.model / "tokenizer.json").unlink()
    assert published.problem().file == str(published.model / "tokenizer.json")


@pytest.mark.parametrize("name", ["modeling_tiny.py", "pytorch_model.bin", "metadata/more.json"])
def test_an_added_file_is_found_even_with_a_record_that_has_it(published: Published, name: str) -> None:
    (published.model / name).write_text("print()")
    assert published.problem().file == str(published.model / name)
    published.edit_record(lambda record: record["files"].update({name: sha256(published.model / name)}))
    assert published.problem().key == f"files.{name}"


def test_files_that_git_and_the_hub_add_are_ignored(reproduced: Published) -> None:
    (reproduced.model / ".gitattributes").touch()
    (reproduced.model / ".cache").mkdir()
    (reproduced.model / ".cache/x").touch()
    assert verify_folder(reproduced.model) is Verdict.IDENTICAL


def test_other_weights_with_their_digest_in_the_record_are_found_by_dvc_lock(published: Published) -> None:
    flip_a_bit(published.model / WEIGHTS)
    published.edit_record(lambda _: None)
    found = published.problem()
    assert "models/final" in found.problem
    assert WEIGHTS in found.key


def edit_lock(folder: Path, path: str, md5: str) -> None:
    """Change the digest of an output, wherever dvc.lock has it."""
    yaml = YAML()
    content = yaml.load((folder / "dvc.lock").read_text())
    for stage in content["stages"].values():
        for entry in (*stage.get("deps", ()), *stage.get("outs", ())):
            if entry["path"] == path:
                entry["md5"] = md5
    yaml.dump(content, folder / "dvc.lock")


@pytest.mark.parametrize("path", ["metrics/evaluate.json", "data/raw", "predictions"])
def test_a_forged_dvc_lock_is_found_even_with_a_record_that_agrees(
    published: Published, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = "0" * 32 + (".dir" if "." not in path else "")
    edit_lock(published.model, path, forged)

    def agree(record: dict[str, Any]) -> None:
        record["run"]["outputs"][path]["md5"] = forged
        record["run"]["data"] |= {path: forged} if path in record["run"]["data"] else {}

    published.edit_record(agree)
    assert published.problem().file == str(published.model / "dvc.lock")
    lines = capsys.readouterr().err.splitlines()
    assert any(f"run.outputs.{path}.md5: expected the value of commit" in line for line in lines)


@pytest.mark.parametrize("path", [SLSA, SBOM, CRATE])
def test_a_forged_form_is_found_even_with_a_record_that_agrees(
    published: Published, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = published.model / path
    file.write_text(file.read_text().replace(read_record(published.model).commit, "0" * 40))
    published.edit_record(lambda _: None)
    last = published.problem()
    assert f"{file}: not what follows from commit" in f"{capsys.readouterr().err}\n{last}"
    file.unlink()
    published.edit_record(lambda _: None)  # drops its digest
    last = published.problem()
    assert f"{file}: not what follows from commit" in f"{capsys.readouterr().err}\n{last}"


def test_packages_of_an_image_are_exported_and_checked_in_that_image(
    reproduced: Published, trained_repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = "reprise:cpu@sha256:" + "5" * 64
    status = reproduced.root / "status"
    status.write_text("Package: git\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.39.5-0\n")
    monkeypatch.setattr("reprise.sharing.image.DPKG_STATUS", status)
    owner, model = reproduced.root / "owner", reproduced.root / "of-image"
    shutil.copytree(trained_repo, owner, symlinks=True)
    monkeypatch.chdir(owner)
    content = read_json(PROVENANCE)
    content["sessions"][-1]["image"] = image
    content.pop("sha256")
    write_json(PROVENANCE, content | {"sha256": json_sha256(content)})
    check_output("git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-qam", "Run in the image")
    export(Path("../outside"))
    assert f"without the Debian packages of {image}" in capsys.readouterr().out
    monkeypatch.setenv("REPRISE_IMAGE", image)
    export(model)
    assert "pkg:deb/debian/git@1:2.39.5-0" in (model / IMAGE_SBOM).read_text()
    for folder in (model, Path("../outside")):
        assert verify_folder(folder) is not None  # nothing is refused
    status.write_text(status.read_text().replace("2.39", "2.40"))
    with pytest.raises(UserError) as refused:
        verify_folder(model)
    assert refused.value.file == str(model / IMAGE_SBOM)
    monkeypatch.delenv("REPRISE_IMAGE")
    assert verify_folder(model) is not None  # elsewhere it is not known


def test_packages_of_an_image_that_a_run_did_not_have_are_found(published: Published) -> None:
    (published.model / IMAGE_SBOM).write_text("{}")
    published.edit_record(lambda record: record["files"].update({IMAGE_SBOM: sha256(published.model / IMAGE_SBOM)}))
    found = published.problem()
    assert found.file == str(published.model / IMAGE_SBOM)


def test_results_for_the_hub_that_the_run_does_not_have_are_found(published: Published) -> None:
    (published.model / ".eval_results").mkdir()
    (published.model / EVAL_RESULTS).write_text("[]\n")
    published.edit_record(lambda record: record["files"].update({EVAL_RESULTS: sha256(published.model / EVAL_RESULTS)}))
    assert published.problem().file == str(published.model / EVAL_RESULTS)


def test_swapped_data_of_the_record_are_found(published: Published) -> None:
    published.edit_record(lambda record: record["run"]["data"].update({"data/own/reviews.csv": "0" * 64}))
    assert published.problem().key == "run.data.data/own/reviews.csv"


@pytest.mark.parametrize("key", ["python", "image", "locks"])
def test_another_environment_in_the_record_is_found(published: Published, key: str) -> None:
    published.edit_record(lambda record: record["run"]["environment"].update({key: "0" * 64}))
    assert published.problem().key.startswith(f"run.environment.{key}")


@pytest.mark.parametrize("file", ["reference/wide.json", "params.yaml", "reference/a\nHEAD:params.yaml", 3])
def test_a_spread_over_seeds_that_the_commit_does_not_have_is_found(published: Published, file: Any) -> None:
    wide = {"file": file, "metrics": {}, "seeds": ["1"]}
    published.edit_record(lambda record: record["run"].update(reference=wide))
    assert published.problem().key == "run.reference"


def test_the_spread_over_seeds_of_the_commit_agrees(published: Published) -> None:
    measured = {"metrics": {"evaluate": {"accuracy": {"mean": 0.9, "sd": 0.1}}}, "seeds": {"1": {}, "2": {}}}
    Path("reference").mkdir(exist_ok=True)
    write_json(Path("reference/reviews-tiny-cpu.json"), measured)
    check_output("git", "add", "reference")
    check_output("git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-qm", "Measure")
    reference = {"file": "reference/reviews-tiny-cpu.json", "metrics": measured["metrics"], "seeds": ["1", "2"]}
    published.edit_record(lambda record: record["run"].update(reference=reference))
    read = commit_reader(check_output("git", "rev-parse", "HEAD"))
    problems = commit_problems(published.model, read_record(published.model), read_result(read, "HEAD"), read)
    assert list(problems) == []


def test_a_recipe_that_is_not_that_of_the_run_is_found(published: Published) -> None:
    yaml = YAML()
    recipe = yaml.load((published.model / "params.yaml").read_text())
    recipe["train"]["learning_rate"] = 0.5
    yaml.dump(recipe, published.model / "params.yaml")
    published.edit_record(lambda _: None)
    found = published.problem()
    assert (found.file, found.key) == (str(published.model / "params.yaml"), "train.learning_rate")


@pytest.mark.parametrize("place", ["metadata", "table", "name", "weights"])
def test_a_card_that_claims_something_else_is_found(published: Published, place: str) -> None:
    file = published.model / "README.md"
    text, evaluated = file.read_text(), read_json(Path("metrics/evaluate.json"))
    row = f"| accuracy | {evaluated['accuracy']:.4f} |"
    changed = {
        "metadata": lambda: text.replace("metrics:", "metrics:", 1),
        "table": lambda: text.replace(row, "| accuracy | 0.9999 |"),
        "name": lambda: text.replace("name: tiny-reviews", "name: bert-reviews"),
        "weights": lambda: text.replace(read_record(published.model).files[WEIGHTS], "0" * 64),
    }[place]()
    if place == "metadata":
        card = ModelCard(text)
        card.data.eval_results[0].metric_value = 0.9999
        changed = str(card)
    assert changed != text
    file.write_text(changed)
    found = published.problem()
    assert found.file == str(file)
    expected = {"metadata": "model-index: accuracy", "table": "Evaluation: accuracy", "name": "model-index.name"}
    assert found.key == expected.get(place, "Reproduce it")


def test_a_licence_and_a_description_may_be_added_to_the_card(reproduced: Published) -> None:
    card = ModelCard.load(reproduced.model / "README.md")
    card.data.license = "apache-2.0"
    card.text += "\n## Thanks\n\nTo all reviewers.\n"
    card.save(reproduced.model / "README.md")
    assert verify_folder(reproduced.model) is Verdict.IDENTICAL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("commit", "HEAD"),
        ("commit", "--upload-pack=touch x"),
        ("repository", "ext::sh -c touch% x"),
        ("repository", "https://me:s3cr3t@example.org/a.git"),
        ("files", ["a"]),
    ],
)
def test_a_record_in_another_form_is_refused(published: Published, key: str, value: Any) -> None:
    content = json.loads((published.model / "reproduce.json").read_text())
    write_json(published.model / "reproduce.json", content | {key: value})
    found = published.problem()
    assert (found.file, found.key.split(".")[0]) == (str(published.model / "reproduce.json"), key)


def drop_commit(clone: Path) -> None:
    """Make a clone one that was made before the commit was pushed: it has the first commit alone."""
    first = check_output("git", "rev-list", "--max-parents=0", "HEAD")
    check_output("git", "reset", "-q", "--hard", first)
    for ref in check_output("git", "for-each-ref", "--format=%(refname)", "refs/remotes").splitlines():
        check_output("git", "update-ref", "-d", ref)
    check_output("git", "reflog", "expire", "--expire=now", "--all")
    check_output("git", "gc", "-q", "--prune=now")


def test_a_commit_that_is_not_here_is_fetched_from_the_remote_of_its_url(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_commit(reproduced.clone)
    assert verify_folder(reproduced.model) is Verdict.IDENTICAL
    assert f"from {URL}" in capsys.readouterr().out


def test_a_commit_is_never_fetched_from_where_only_the_folder_points(published: Published) -> None:
    drop_commit(published.clone)
    published.edit_record(lambda record: record.update(repository="https://example.org/evil/reviews.git"))
    found = published.problem()
    assert (found.key, "evil" in found.expected) == ("repository", True)


def test_a_commit_that_nobody_has_is_refused(published: Published) -> None:
    published.edit_record(lambda record: record.update(commit="0" * 40, missing=["push it"]))
    found = published.problem()
    assert found.key == "commit"
    assert "push it" in found.problem


def test_what_is_missing_for_others_is_recorded(repo_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo_copy)
    Path("README.md").write_text("Mine.\n")  # has no effect on the run
    Path("src/reprise/more.py").write_text("")
    export(Path("../model"))
    url, changed, pushed = read_record(Path("../model")).missing
    assert "URL" in url
    assert changed == "not committed: src/reprise/more.py"
    assert "push it" in pushed


def test_verdicts_of_several_verifiers_are_listed_with_key_and_place(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine", "friend"):
        verify_folder(reproduced.model, new_key(reproduced.root, name))
    counts, shown = lines_of(reproduced, capsys)
    assert counts
    assert "2 of 2 count: signed, about these weights, by a trusted key" in shown
    for part in (", mine", ", friend", ": identical", "signature holds", "about these weights", "on cpu: "):
        assert part in shown
    verify_folder(reproduced.model)  # what was added disturbs nobody


def attested(published: Published, name: str = "mine") -> Path:
    """Sign the verdict of a folder; return the file."""
    verify_folder(published.model, new_key(published.root, name))
    (file,) = (published.model / "attestations").iterdir()
    return file


def lines_of(published: Published, capsys: pytest.CaptureFixture[str], trusted: bool = True) -> tuple[bool, str]:
    capsys.readouterr()
    counts = list_attestations(published.model, published.root / "keys" if trusted else None)
    return counts, " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_signature_over_other_bytes_does_not_hold(reproduced: Published, capsys: pytest.CaptureFixture[str]) -> None:
    file = attested(reproduced)
    envelope = read_json(file)
    content = json.loads(base64.b64decode(envelope["payload"]))
    content["predicate"]["environment"]["devices"] = ["cpu: another"]
    write_json(file, envelope | {"payload": base64.b64encode(json.dumps(content).encode()).decode()})
    counts, shown = lines_of(reproduced, capsys)
    assert (counts, "DOES NOT HOLD" in shown) == (False, True)


def test_an_old_signature_on_new_weights_is_shown_as_that(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    attested(reproduced)
    flip_a_bit(reproduced.model / WEIGHTS)
    reproduced.edit_record(lambda _: None)  # a new record, of the new weights
    counts, shown = lines_of(reproduced, capsys)
    assert (counts, "OTHER WEIGHTS" in shown, "holds" in shown) == (False, True, True)


def test_a_signature_does_not_cover_code_that_was_added(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    attested(reproduced)
    (reproduced.model / "modeling_tiny.py").touch()
    counts, shown = lines_of(reproduced, capsys)
    assert (counts, "OTHER WEIGHTS" in shown) == (False, True)


def test_the_folder_can_be_signed_by_model_signing_too(reproduced: Published, run: Run) -> None:
    private, public = reproduced.root / "ec.key", reproduced.root / "ec.pub"
    made = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")  # the key of `reprise verify --help`
    run(reproduced.root, "openssl", "genpkey", *made, "-out", str(private))
    run(reproduced.root, "openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public))
    verify_folder(reproduced.model, private)
    with_files = ("model", "--signature", "model/model.sig", "--ignore-paths", "model/attestations")
    run(reproduced.root, "model_signing", "sign", "key", *with_files, "--private_key", str(private))
    run(reproduced.root, "model_signing", "verify", "key", *with_files, "--public_key", str(public))
    assert verify_folder(reproduced.model) is Verdict.IDENTICAL
    flip_a_bit(reproduced.model / "README.md")
    run(reproduced.root, "model_signing", "verify", "key", *with_files, "--public_key", str(public), code=1)


def test_a_key_that_nobody_trusts_does_not_count(reproduced: Published, capsys: pytest.CaptureFixture[str]) -> None:
    attested(reproduced, "stranger")
    (reproduced.root / "keys/stranger.pub").unlink()
    new_key(reproduced.root, "friend")
    counts, shown = lines_of(reproduced, capsys)
    assert (counts, "not trusted" in shown, "holds" in shown) == (False, True, True)
    assert lines_of(reproduced, capsys, trusted=False)[0]


def test_a_stranger_who_takes_the_name_of_a_trusted_key_does_not_count(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    file = attested(reproduced, "stranger")
    friend = new_key(reproduced.root, "friend")
    (reproduced.root / "keys/stranger.pub").unlink()
    key = serialization.load_pem_private_key(friend.read_bytes(), None)
    envelope = read_json(file)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    envelope["signatures"][0]["keyid"] = fingerprint(key.public_key())
    write_json(file, envelope)
    counts, shown = lines_of(reproduced, capsys)
    assert (counts, "DOES NOT HOLD" in shown) == (False, True)


def test_what_is_no_attestation_is_named_and_hides_no_other(
    reproduced: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list_attestations(reproduced.model, None)
    attested(reproduced)
    (reproduced.model / "attestations/0.json").write_text("{}")
    counts, shown = lines_of(reproduced, capsys)
    assert counts
    assert f"{reproduced.model}/attestations/0.json: not a signed verdict" in shown
    assert "1 of 2 count" in shown


def test_what_is_no_public_key_is_refused_in_one_line(reproduced: Published) -> None:
    attested(reproduced)
    (reproduced.root / "keys/mine.pub").write_text("mine")
    with pytest.raises(UserError) as refused:
        list_attestations(reproduced.model, reproduced.root / "keys")
    assert refused.value.file == str(reproduced.root / "keys/mine.pub")


def test_a_wrong_key_is_refused_before_anything_runs(published: Published) -> None:
    assert published.problem(key=published.root / "absent.key").file == str(published.root / "absent.key")


def test_the_verdict_of_a_revision_is_not_signed(published: Published, run: Run) -> None:
    (line,) = run(published.clone, "reprise", "verify", "HEAD", "--attest", "mine.key", code=2).stderr.splitlines()
    assert line.startswith("reprise: error: HEAD: expected a folder ")


def test_a_folder_on_the_hub_is_verified_and_signed(
    reproduced: Published, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = new_key(reproduced.root, "mine")
    with serving(LocalHub()) as hub:
        use_hub(hub, tmp_path / "cache", monkeypatch)
        hub.add("model", "me/reviews", contents(reproduced.model))
        target, command = f"hub:me/reviews@{COMMIT}", CliRunner()
        done = command.invoke(app, ["verify", "--strict", target, "--attest", str(key)])
        assert (done.exit_code, "card agree with commit" in done.output) == (0, True), done.output
        listed = command.invoke(app, ["attestations", target, "--trusted", str(reproduced.root / "keys")])
    assert (listed.exit_code, "1 of 1 count" in listed.output) == (0, True), listed.output
    status = check_output("git", "status", "--porcelain")
    assert status == ""


@pytest.mark.full
@pytest.mark.parametrize("place", ["../model", f"hub:me/reviews@{COMMIT}"])
def test_a_stranger_reproduces_a_folder_and_adds_an_attestation(
    published_once: Path, tmp_path: Path, run: Run, place: str
) -> None:
    shutil.copytree(published_once / "model", tmp_path / "model")
    (tmp_path / "home").mkdir()
    origin = published_once / "origin.git"
    key = new_key(tmp_path, "mine")
    with serving(LocalHub()) as hub:
        hub.add("model", "me/reviews", contents(tmp_path / "model"))
        hub_only = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
        stranger = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/cache"), **hub_only}
        run(tmp_path, "git", "clone", "-q", "-c", f"url.{origin}.insteadOf={URL}", URL, "clone", env=stranger)
        done = run(tmp_path / "clone", "reprise", "verify", "--strict", place, "--attest", str(key), env=stranger)
        assert "Verdict: identical\n" in done.stdout
        assert "restored from the DVC cache" not in done.stdout
        listed = run(tmp_path / "clone", "reprise", "attestations", place, "--trusted", "../keys", env=stranger)
    assert "1 of 1 count" in listed.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.full
def test_data_that_were_swapped_in_the_commit_are_different(repo_copy: Path, run: Run) -> None:
    table = repo_copy / "data/own/reviews.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    run(repo_copy, "git", "commit", "-qam", "Swap the data, and keep the results")
    done = run(repo_copy, "reprise", "verify", code=1)
    assert done.stdout.endswith("Verdict: different\n")
