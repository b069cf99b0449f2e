"""cli: wrong usage returns 2 and a failure returns 1, each with one sentence on stderr, and in the JSON object."""

import pytest

from colorizer.models import evaluation


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["paint"],
        ["data", "--nope"],
        ["data", "extra"],
        ["train", "--preset", "nope"],
        ["train", "--epochs", "many"],
        ["train", "--encoder-widths", "8,x"],
        ["train", "--flips", "maybe"],
        ["sweep", "--trials", "0"],
        ["sweep", "--trials", "2.5"],
        ["sweep", "--time-budget", "-1"],
        ["sweep", "--time-budget", "nan"],
        ["sweep", "--latent-dims", "8,x"],
        ["evaluate"],
        ["evaluate", "linear", "--all"],
        ["evaluate", "linear", "--split", "all"],
        ["evaluate", "linear", "--strength", "x"],
        ["evaluate", "linear", "--figure", "x.png"],
        ["evaluate", "--all", "--photos", "photos", "--figure", "x.png", "--strength", "0.5"],
        ["evaluate", "--all", "--photos", "photos", "--backbone", "x.pth", "--hints", "5"],
        ["evaluate", "linear", "--size", "64"],
        ["evaluate", "linear", "--hints", "1"],
        ["evaluate", "linear", "--photos", "photos", "--hints", "x"],
        ["colorize", "linear", "photo.png"],
        ["colorize", "linear", "--output", "out"],
        ["export", "linear"],
        ["report", "linear"],
    ],
    ids=" ".join,
)
def test_wrong_usage_returns_2_with_one_sentence(run, run_json, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "--help` to see the usage." in err
    code, result = run_json(*words)
    assert code == 2
    assert list(result) == ["error"]


@pytest.mark.parametrize(("word", "meant"), [("evalute", "evaluate"), ("colourize", "colorize"), ("tran", "train")])
def test_a_misspelt_command_gets_a_suggestion(run, word, meant):
    assert f"Did you mean '{meant}'?" in run(word)[2]


def test_wrong_usage_repeats_only_the_beginning_of_a_very_long_word(run):
    code, _, err = run("train", "--epochs", "9" * 100_000 + "x")
    assert code == 2 and "999" in err
    assert len(err) < 1000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--name", "../evil"], "'../evil' is not a valid name."),
        (["train", "--epochs", "9999"], "epochs must be a whole number from 0 to 200, received 9999."),
        (["train", "--name", "linear"], "A model named linear is already here."),
        (["train", "--name", "mine"], "CIFAR-10 is not on this machine."),
        (["train", "--dataset", "samples", "--name", "mine"], "The data set samples has no training images."),
        (
            ["train", "--dataset", "synthetic", "--epochs", "0", "--name", "mine", "--library", "file/shelf"],
            "be written (Not a directory)",
        ),
        (["evaluate", "nope"], "There is no model 'nope'."),
        (["evaluate", "linear"], "CIFAR-10 is not on this machine."),
        (["evaluate", "linear", "--strength", "-1"], "strength must be a number from 0 to 1.5, received -1.0."),
        (["evaluate", "linear", "--vividness", "0.4"], "linear has no vividness to set."),
        (["evaluate", "linear", "--dataset", "mnist"], "dataset must be one of cifar10, synthetic, samples, cifar100,"),
        (["evaluate", "linear", "--dataset", "cifar100:nope.npz"], "nope.npz cannot be used ("),
        (["train", "--dataset", "folder:nope", "--name", "mine"], "There is no folder "),
        (["train", "--freeze-encoder", "--name", "mine"], "freeze_encoder needs init_from."),
        (["train", "--init-from", "nope", "--name", "mine"], "There is no model 'nope'."),
        (["train", "--init-from", "unet", "--name", "mine"], "The encoder of unet does not fit: its architecture is"),
        (
            ["evaluate", "linear", "--dataset", "samples", "--split", "train"],
            "The data set samples has no train images.",
        ),
        (["evaluate", "linear", "--photos", "nope"], "There is no folder or zip nope."),
        (["evaluate", "linear", "--photos", "file"], "file cannot be read as a zip (File is not a zip file)."),
        (["evaluate", "linear", "--photos", ".", "--size", "64"], "linear sees every photo at 32 x 32 pixels."),
        (["evaluate", "unet", "--photos", ".", "--size", "65"], "size must be a multiple of 8 from 32 to 256"),
        (["evaluate", "unet", "--photos", ".", "--hints", "201"], "hints must be whole numbers from 0 to 200"),
        (["evaluate", "unet", "--photos", ".", "--hints", "1,5"], "unet takes no hints."),
        (["evaluate", "linear", "--dataset", "samples", "--strength", "2"], "strength must be a number from 0 to 1.5,"),
        (["evaluate", "linear", "--dataset", "samples", "--vividness", "1"], "linear has no vividness to set."),
        (["colorize", "nope", "photo.png", "--output", "out"], "There is no model 'nope'."),
        (["colorize", "linear", "photo.png", "--output", "out", "--vividness", "1"], "linear has no vividness to set."),
        (["colorize", "linear", "photo.png", "--output", "out", "--strength", "2"], "strength must be a number from 0"),
        (["colorize", "linear", "photo.png", "--output", "out", "--size", "64"], "linear sees every photo at 32 x 32"),
        (["colorize", "unet", "photo.png", "--output", "out", "--size", "1"], "size must be a multiple of 8 from 32"),
        (["report", "./nope", "--output", "out"], "nope is not a model"),
        (["report", "linear", "--output", ""], "A path is empty"),
        (["colorize", "linear", "", "--output", "out"], "A path is empty"),
        (["colorize", "linear", "photo.png", "--output", ""], "A path is empty"),
        (["evaluate", "linear", "--photos", ""], "A path is empty"),
        (["evaluate", "--all", "--figure", ""], "A path is empty"),
        (["train", "--library", ""], "A path is empty"),
        (["train", "--photos", ""], "A path is empty"),
        (["colorize", "linear", "~no-such-user/x.png", "--output", "out"], "The path '~no-such-user/x.png' cannot be"),
        (["colorize", "linear", "photo.png", "--output", "~no-such-user/x"], "The path '~no-such-user/x' cannot be"),
        (["evaluate", "linear", "--photos", "~no-such-user"], "The path '~no-such-user' cannot be used"),
        (["train", "--architecture", "nope"], "architecture must be one of dense, conv, unet, backbone, received"),
        (["report", "linear", "--output", "file/report"], "cannot be written"),
    ],
)
def test_failures_return_1_with_one_sentence(run, run_json, words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert sentence in err
    assert "Traceback" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    code, result = run_json(*words)
    assert (code, list(result)) == (1, ["error"])
    assert sentence in result["error"]


@pytest.mark.parametrize("folder", ["photos", "photos/"])
def test_swapped_arguments_are_named_and_nobody_is_told_to_delete_photos(run, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    code, out, err = run("colorize", folder, "linear", "--output", "out")
    assert (code, out) == (1, "")
    assert "delete" not in err.lower()
    assert f"the model comes first, as in `colorize linear {folder}`." in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("figure", ["x.xyz", "x", "folder.png"])
def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_measured(run, monkeypatch, tmp_path, figure):
    monkeypatch.setattr(evaluation, "measure", lambda *_, **__: pytest.fail("measured before the figure was refused"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    code, out, err = run("evaluate", "--all", "--dataset", "samples", "--figure", figure)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {figure} cannot be written (")
