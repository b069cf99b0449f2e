"""The documents: what the README promises to be, links that resolve, and commands that exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from colorizer.app import cli

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


# A command as the documents write it, in a block or inside a sentence, up to a comment.
COMMAND = re.compile(
    r"^ *(?:python -m )?colorizer ([a-z].*?) *(?:#.*)?$|`(?:python -m )?colorizer ([^`]+)`", re.MULTILINE
)
PLACEHOLDERS = {"N": "3", "NAME": "dense", "MODEL": "dense", "FLAGS": ""}
# The parser itself is asked, since running each command would download, train and start servers.
PROGRAM = typer.main.get_command(cli._app)


def _commands():
    """Return every command in the documents, with the variables and placeholders of its page filled in."""
    found = {}
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        variables = dict(re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE))
        for match in COMMAND.finditer(text):
            line = match[1] or match[2]
            for _ in variables:  # A variable may hold another one.
                line = re.sub(r"\$([A-Z]+)", lambda name, values=variables: values[name[1]], line)
            line = re.sub(r"\b[A-Z]+\b(?!=)", lambda word: PLACEHOLDERS.get(word[0], word[0]), line)
            found[f"{path.relative_to(ROOT).as_posix()}: {line}"] = shlex.split(line)
    return found


def _options(command):
    return {word for option in command.params for word in (*option.opts, *option.secondary_opts)}


COMMANDS = _commands()


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_commands_in_the_documents_are_understood(words):
    if words[0].startswith("--"):
        assert words[0] in _options(PROGRAM) | {"--help"}
        return
    assert words[0] in PROGRAM.commands
    if "--help" not in words:
        PROGRAM.commands[words[0]].make_context(words[0], cli._complete_latent_dims(words[1:]))


def test_options_in_the_document_on_the_command_line_exist():
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    known = {"--help"}.union(*map(_options, PROGRAM.commands.values()))
    assert set(re.findall(r"--[a-z][a-z0-9-]+", text)) <= known
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) <= set(PROGRAM.commands)
