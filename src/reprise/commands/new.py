"""`reprise new`: a project of one's own, with the code, images and catalog of this repository."""

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Template

from reprise.commands.compose import compose_command, compose_recipe, write_recipe
from reprise.commands.markdown import escape_markdown
from reprise.core.config import PARAMS
from reprise.core.display import echo
from reprise.core.errors import UserError
from reprise.core.files import atomic_dir
from reprise.results.vcs import check_output, resolve_commit, try_output

README = Path(__file__).with_name("new_readme.md.jinja")
# What describes, tests or results from this repository, and is no part of another project.
LEFT_OUT = re.compile(
    r"\.(ci|gitlab-ci\.yml|pre-commit-config\.yaml)\b|\.github/(?!workflows/compare\.yml)|"
    r"(benchmarks|docs|metrics|notebooks|plots|reference|tests)/|docker/(make-test-(arm64|base)|cpu/(dev|docs)\.)|"
    r"((CHANGELOG|CONTRIBUTING|README|SECURITY)\.md|CITATION\.cff|mkdocs\.yml|dvc\.lock|environment\.json|data/sources\.json)$"
)
# Targets of make, and stamps, that need a file that is left out.
MAKE_LEFT_OUT = r"(?:test|bench|prove|lint|docs|format)[a-z0-9-]*"
STAMP_LEFT_OUT = r"\$\(VENV\)/\.(?:dev|docs)"


def create_project(folder: Path, overrides: Sequence[str]) -> None:
    """Create a project: the tracked files that any recipe needs, a composed recipe, and a first commit.

    Args:
        folder: folder that is empty or does not exist, outside this repository.
        overrides: choices and values of the recipe, as for `reprise compose`.

    Raises:
        UserError: the folder cannot be used, this is no git repository, or the recipe is invalid.
    """
    target = folder.resolve()
    if target.is_relative_to(Path.cwd()):
        raise UserError("in this repository", file=folder, expected="a folder outside it")
    blocked = any(parent.is_file() for parent in target.parents) or target.is_file()
    if blocked or (target.is_dir() and any(target.iterdir())):
        raise UserError(file=folder, expected="a folder that is empty or does not exist")
    commit, recipe = resolve_commit("HEAD"), compose_recipe(overrides)
    tracked = [name for name in check_output("git", "ls-files", "-z").split("\0") if Path(name).is_file()]
    with atomic_dir(target) as partial:
        for name in tracked:
            if not LEFT_OUT.match(name):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(name, partial / name)
        for name, shorten in (("Makefile", shorten_makefile), ("pyproject.toml", shorten_pyproject)):
            text = (partial / name).read_text(encoding="utf-8")
            (partial / name).write_text(shorten(text), encoding="utf-8")
        (partial / PARAMS).unlink(missing_ok=True)
        write_recipe(recipe, overrides, partial / PARAMS)
        readme = Template(README.read_text(encoding="utf-8"), keep_trailing_newline=True)
        command = compose_command(overrides)
        content = readme.render(name=escape_markdown(target.name), commit=commit, command=command, recipe=recipe)
        (partial / "README.md").write_text(content, encoding="utf-8")
        check_output("git", "init", "--quiet", "--initial-branch=main", folder=partial)
        check_output("git", "add", ".", folder=partial)
        known = try_output("git", "config", "user.email", folder=partial)
        identity = () if known else ("-c", "user.name=reprise", "-c", "user.email=reprise@localhost")
        check_output("git", *identity, "commit", "--quiet", "-m", f"From Reprise at {commit[:12]}", folder=partial)
    echo(f"new: {folder}: {recipe['model']['name']} on {recipe['task']['name']}")
    echo(f"new: next: cd {shlex.quote(str(folder))} && make train")


def shorten_makefile(text: str) -> str:
    """Remove the paragraphs of targets and stamps whose files are left out, and their names elsewhere."""
    rule = re.compile(rf"^(?:{MAKE_LEFT_OUT}|{STAMP_LEFT_OUT}):|^define ENSURE_BROWSER", re.MULTILINE)
    kept = [paragraph for paragraph in text.split("\n\n") if not rule.search(paragraph)]
    for index, paragraph in enumerate(kept):
        if paragraph.startswith(".PHONY:"):
            names = paragraph.replace("\\\n", " ").split()
            kept[index] = " ".join(name for name in names if not re.fullmatch(MAKE_LEFT_OUT, name))
    return re.sub(r"^.*\b(?:dev|docs)\.in\b.*\n", "", "\n\n".join(kept), flags=re.MULTILINE)


def shorten_pyproject(text: str) -> str:
    """Remove the settings of the tools for style, types and tests."""
    return text.partition("[tool.ruff]")[0].rstrip() + "\n"
