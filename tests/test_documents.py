"""The documents: what the README promises to be, links that resolve, and commands that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("assets/**/*.md")])
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
IDS = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def _anchors(text):
    """Return the anchors that a Markdown page gives its headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere_and_pictures_are_described(path):
    for picture, text, target in LINK.findall(path.read_text(encoding="utf-8")):
        assert not picture or len(text) > 20, f"{target} needs a description"
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            linked = path.parent / file if file else path
            assert linked.exists(), target
            assert not anchor or anchor in _anchors(linked.read_text(encoding="utf-8")), target


def test_the_readme_is_short_and_has_both_commands_in_its_first_screen():
    assert len(README.encode()) <= 8192
    first_screen = "\n".join(README.splitlines()[:24])
    assert "-m streamlit run streamlit_app.py" in first_screen
    assert "-m pytest" in first_screen
    assert README.count("|\n") - 2 <= 7, "the table of results has at most seven rows"


def test_every_document_is_linked_from_the_readme():
    linked = {target for _, _, target in LINK.findall(README)}
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} <= linked


def test_ci_refuses_a_readme_with_another_test_command(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "README.md").write_text(README.replace("-m pytest -n 2", "-m pytest"), encoding="utf-8")
    done = subprocess.run(["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("The README's test command differs from the one in .ci/run.")


def test_ci_has_the_test_command_of_the_readme():
    command = next(line for line in README.splitlines() if "-m pytest" in line)
    assert f'command="{command}"\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
