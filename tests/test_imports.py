"""The house: imports point downward only, without cycles, and what must stay light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import colorizer

PACKAGE = Path(colorizer.__file__).parent
# From low to high. Rooms on one level do not import each other, the pages of the app excepted.
LEVELS = (
    {"errors"},
    {"config"},
    {"archive", "color", "storage"},
    {"images"},
    {"guided", "sources"},
    {"models", "linear", "data", "metrics", "plotting", "transfer"},
    {"library", "tables"},
    {"trainer", "inference"},
    {"training"},
    {"evaluation"},
    {"worker", "batch"},
    {"runs", "cluster", "sweep"},
    {"process", "search"},
    {"service", "commands"},
    {"cli", "ui"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ENTRANCES = {"__init__", "__main__"}
FILES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def _room(file):
    return file.split("/")[0].removesuffix(".py")


def _imported(tree):
    """Dotted names of everything that a file imports anywhere, functions and type checks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _rooms_imported(file):
    names = {name.split(".")[1] for name in _imported(FILES[file]) if name.startswith("colorizer.")}
    return {name for name in names if name in LEVEL or (PACKAGE / f"{name}.py").exists()}


def test_every_room_has_its_level():
    assert {_room(file) for file in FILES} - ENTRANCES == set(LEVEL)


def test_the_architecture_picture_names_every_room():
    picture = (PACKAGE.parent / "README.md").read_text(encoding="utf-8").split("```")
    boxes = [box.split(" — ")[0] for part in picture if part.startswith("mermaid") for box in part.split('["')[1:]]
    assert sorted(room for box in boxes for room in box.split(", ")) == sorted(LEVEL)


@pytest.mark.parametrize("file", [file for file in FILES if _room(file) not in ENTRANCES])
def test_imports_point_downward(file):
    room = _room(file)
    upward = {other for other in _rooms_imported(file) if LEVEL[other] >= LEVEL[room]}
    assert upward <= ({"ui"} if room == "ui" else set())


def test_the_parser_sees_imports_inside_functions():
    assert {"inference", "worker"} <= _rooms_imported("commands.py")
    assert "errors" in _rooms_imported("config.py")


def test_only_the_pages_import_streamlit():
    users = {
        _room(file) for file, tree in FILES.items() if any(n.split(".")[0] == "streamlit" for n in _imported(tree))
    }
    assert users == {"ui"}


def test_nobody_imports_pyplot():
    assert not [file for file, tree in FILES.items() if "matplotlib.pyplot" in set(_imported(tree))]


@pytest.mark.parametrize(
    "module",
    [
        "colorizer",
        *(f"colorizer.{name}" for name in ("library", "service", "plotting", "images", "cli", "cluster", "search")),
    ],
)
def test_importing_stays_light(module):
    heavy = ("tensorflow", "keras", "streamlit", "matplotlib.pyplot", "ray")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_page_shows_its_pictures_without_what_takes_long_to_import():
    heavy = ("tensorflow", "keras", "scipy", "pandas", "altair", "matplotlib")
    rooms = "colorizer.ui.state, colorizer.ui.live, colorizer.ui.pictures"
    code = f"import sys, {rooms}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_errors_are_there_after_importing_the_package_alone():
    code = "import colorizer; print(colorizer.errors.ColorizerError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ColorizerError\n", done.stderr
