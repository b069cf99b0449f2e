"""The house: a package imports only from packages to its left, and what must stay light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import colorizer

PACKAGE = Path(colorizer.__file__).parent
LINE = "pixels < data < models < training < jobs < app"
ROOMS = LINE.split(" < ")
LEAVES = {"errors", "settings", "config", "presets", "storage"}
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
    return names & ({*ROOMS} | LEAVES)


def _files_that_import(*packages):
    return {file for file, tree in FILES.items() if any(name.split(".")[0] in packages for name in _imported(tree))}


def test_the_package_has_the_six_rooms_and_the_leaves_only():
    assert {_room(file) for file in FILES} - ENTRANCES <= {*ROOMS} | LEAVES
    assert {*ROOMS} <= {_room(file) for file in FILES}


def test_the_documents_say_the_same_line():
    root = PACKAGE.parent
    for document in (root / "README.md", root / "docs" / "architecture.md"):
        assert LINE in document.read_text(encoding="utf-8"), document


@pytest.mark.parametrize("file", [file for file in FILES if _room(file) not in ENTRANCES])
def test_a_package_imports_only_from_packages_to_its_left(file):
    room = _room(file)
    if room in LEAVES:
        assert not _rooms_imported(file) & {*ROOMS}
    else:
        assert all(ROOMS.index(other) <= ROOMS.index(room) for other in _rooms_imported(file) - LEAVES)


def test_the_parser_sees_imports_inside_functions():
    assert {"models", "training"} <= _rooms_imported("app/train_commands.py")
    assert "errors" in _rooms_imported("config.py")


def test_only_pages_chapters_and_widgets_import_streamlit():
    folders = {file.rpartition("/")[0] for file in _files_that_import("streamlit")}
    assert folders == {"app/pages", "app/chapters", "app/widgets"}


def test_only_training_imports_tensorflow():
    assert {_room(file) for file in _files_that_import("tensorflow", "keras", "tf2onnx")} == {"training"}


def test_nobody_imports_pyplot():
    assert not [file for file, tree in FILES.items() if "matplotlib.pyplot" in set(_imported(tree))]


@pytest.mark.parametrize(
    "module",
    [
        "colorizer",
        *(
            f"colorizer.{name}"
            for name in (
                "models.library",
                "models.colorizer",
                "jobs.service",
                "app.figures",
                "pixels.images",
                "app.cli",
                "jobs.archives",
                "jobs.search",
                "training.shapes",
                "training.job",
                "data.datasets",
            )
        ),
    ],
)
def test_importing_stays_light(module):
    heavy = ("tensorflow", "keras", "onnx", "onnxruntime", "streamlit", "matplotlib.pyplot", "ray")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_page_shows_its_pictures_without_what_takes_long_to_import():
    heavy = ("tensorflow", "keras", "onnxruntime", "scipy", "pandas", "altair", "matplotlib")
    rooms = "colorizer.app.widgets.state, colorizer.app.widgets.live, colorizer.app.widgets.pictures"
    code = f"import sys, {rooms}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_errors_are_there_after_importing_the_package_alone():
    code = "import colorizer; print(colorizer.errors.ColorizerError.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ColorizerError\n", done.stderr
