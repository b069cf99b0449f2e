"""storage: a folder is replaced in one step, whatever fails or is killed in between; JSON files may hold anything."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colorizer import storage


@pytest.fixture
def target(tmp_path):
    """A folder with an old file."""
    folder = tmp_path / "library" / "model"
    folder.mkdir(parents=True)
    (folder / "file").write_text("old")
    return folder


def _names(folder):
    return [path.name for path in folder.iterdir()]


def _replace(target, content="new"):
    with storage.replace_folder(target) as staging:
        (staging / "file").write_text(content)


def _fail_rename(monkeypatch, number, error):
    """Let the rename of that number fail, the first being 1."""
    rename, calls = Path.rename, []

    def renamed(self, other):
        calls.append(self)
        if len(calls) == number:
            raise error
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", renamed)


def _age(folder, seconds=3600):
    for path in folder.iterdir():
        if path.name.startswith("."):
            os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(target):
    _replace(target)
    assert (target / "file").read_text() == "new"
    assert _names(target.parent) == ["model"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_rename_that_fails_puts_the_old_folder_back(target, monkeypatch, number, error):
    with monkeypatch.context() as patch:
        _fail_rename(patch, number, error)
        with pytest.raises(type(error)):
            _replace(target)
    assert (target / "file").read_text() == "old"
    assert _names(target.parent) == ["model"]


KILLED_AT = {"writing": 0, "first rename": 1, "second rename": 2, "deleting": 3}


@pytest.mark.parametrize("moment", KILLED_AT)
@pytest.mark.parametrize("repair", ["clean up", "replace again"])
def test_a_process_that_is_killed_at_any_moment_loses_nothing(target, moment, repair):
    code = """if True:
        import os, shutil, sys
        from pathlib import Path
        from colorizer import storage
        calls, rename, remove = [], Path.rename, shutil.rmtree
        def count(call):
            def counted(*args, **options):
                calls.append(1)
                if len(calls) == int(sys.argv[2]):
                    os.kill(os.getpid(), 9)
                return call(*args, **options)
            return counted
        Path.rename, shutil.rmtree = count(rename), count(remove)
        with storage.replace_folder(Path(sys.argv[1])) as staging:
            (staging / "file").write_text("new")
            if not int(sys.argv[2]):
                os.kill(os.getpid(), 9)"""
    done = subprocess.run([sys.executable, "-c", code, str(target), str(KILLED_AT[moment])], timeout=60)
    assert done.returncode == -9
    _age(target.parent)
    if repair == "clean up":
        storage.clean_up(target.parent)
        assert (target / "file").read_text() == ("new" if moment == "deleting" else "old")
    else:
        _replace(target, "newest")
        assert (target / "file").read_text() == "newest"
    assert _names(target.parent) == ["model"]


def test_what_another_process_is_writing_now_is_left_alone(target):
    with storage.replace_folder(target):
        _replace(target, "newer")
        assert len(_names(target.parent)) == 2
    assert _names(target.parent) == ["model"]


def test_a_killed_deletion_is_finished_and_the_same_name_can_be_deleted_again(target):
    for _ in range(2):
        target.mkdir(exist_ok=True)
        storage.delete_folder(target)
        assert not _names(target.parent)
    storage.delete_folder(target)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested too deeply"),
        ('{"a": ' + "9" * 400 + "}", "a number has 400 digits"),
        ('{"a": [-' + "9" * 5000 + "]}", "digits"),
        ("[1]", "holds no JSON object"),
        ("{", "Expecting"),
    ],
)
def test_json_that_would_break_a_reader_is_a_value_error(tmp_path, content, match):
    path = tmp_path / "card.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        storage.read_json(path)
