"""Sweeps run on real Ray and Optuna: trials are searched, stopped early, killed, resumed and recorded once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from colorizer import config
from colorizer.app import cli
from colorizer.errors import ClusterError, ConfigError
from colorizer.jobs import search, sweeps
from colorizer.models import library
from colorizer.presets import PRESETS
from tests.conftest import RAY_MISSING, TINY_MODEL, TINY_TRAIN, sweep_trial, write_sweep

WORDS = ["sweep", "--preset", "notebook", "--dataset", "synthetic", "--train-images", "64", "--epochs", "2"]
WORDS += ["--encoder-widths", "8", "--decoder-widths", "8", "--latent-dim", "4"]
EVERY_SETTING = ["--learning-rate", "1e-3", "--batch-size", "8", "--weight-decay", "0", "--shift", "0"]
EVERY_SETTING += ["--activation", "relu"]


@pytest.fixture
def libraries():
    """Skip the test where Ray or Optuna is missing."""
    pytest.importorskip("ray", reason=RAY_MISSING)
    pytest.importorskip("optuna", reason=RAY_MISSING)


def _lines(name):
    path = config.home() / "sweeps" / name / "trials.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def _wait_for_lines(number, driver=None):
    deadline = time.monotonic() + 600
    while len(_lines("mine")) < number:
        assert driver is None or driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, f"{len(_lines('mine'))} trials after ten minutes"
        time.sleep(0.02)


def _keys(lines):
    return [json.dumps(line["settings"], sort_keys=True) for line in lines]


@pytest.mark.slow
def test_four_tiny_trials_outlive_their_driver_and_a_node(libraries, nodes, run, run_json):
    words = [*WORDS, "--trials", "4", "--name", "mine"]
    command = [sys.executable, "-m", "colorizer", *words, "--address", nodes.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as driver:
        _wait_for_lines(1, driver)
        driver.kill()
    before = _lines("mine")
    with (config.home() / "sweeps" / "mine" / "trials.jsonl").open("a") as lines:
        lines.write('{"settings": {"learning_rate": 0.00')  # This line is cut off.

    def kill_a_node():
        _wait_for_lines(len(before) + 1)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    code, result = run_json(*words, "--address", nodes.address, "--resume")
    killer.join()
    after, folder = _lines("mine"), config.home() / "sweeps" / "mine"
    assert after[: len(before)] == before and len(after) == 4 == len(set(_keys(after)))
    assert (code, result["name"], result["path"], len(result["trials"])) == (0, "mine", str(folder), 4)
    assert not any(trial["error"] for trial in result["trials"])
    assert set(result["trials"][0]) == {
        *("learning_rate", "batch_size", "weight_decay", "shift", "activation"),
        *("epochs", "val_loss", "seconds", "error"),
    }
    preset = {"learning_rate": 1e-3, "batch_size": 256, "weight_decay": 0.0, "shift": 0, "activation": "relu"}
    assert preset in [line["settings"] for line in after]
    best = result["trials"][0]
    assert best["val_loss"] == min(trial["val_loss"] for trial in result["trials"] if trial["epochs"] == 2)
    entry = library.find_model("mine")
    assert {key: (entry.card["model"] | entry.card["train"])[key] for key in preset} == {k: best[k] for k in preset}
    assert (entry.card["preset"], entry.model_config.latent_dim, entry.train_config.epochs) == ("notebook", 4, 2)
    assert entry.card["best_val_loss"] == pytest.approx(
        best["val_loss"], rel=1e-3
    )  # It is the same training with more threads.
    assert (folder / "sweep.png").stat().st_size > 10_000
    ((name, offered),) = sweeps.best_presets(sweeps.list_sweeps()).items()
    assert (name, offered.name) == ("mine", "notebook")
    assert (offered.model, offered.train) == (entry.model_config, entry.train_config)

    assert run(*words)[0] == 1  # The name is taken now.
    assert "A model named mine is already here" in run(*words)[2]
    code, out, _ = run(*words, "--resume")  # Nothing is left to do.
    assert code == 0 and "mine: 4 trials from the preset notebook\n\nlearning_rate  batch_size" in out
    code, _, err = run(*words, "--resume", "--epochs", "3")
    assert code == 1 and "The sweep mine has the epochs 2, received 3. Resume it with" in err


@pytest.mark.slow
def test_every_bottleneck_is_trained_to_the_end_beside_the_closed_form(libraries, run):
    code, out, err = run(*WORDS, "--latent-dims", "8,2,8", "--trials", "1")
    assert "Warning" not in err and "Traceback" not in err
    start = "notebook-latent-dims: 2 bottlenecks from the preset notebook\n\nlatent_dim  epochs  val_loss"
    assert (code, out[: len(start)]) == (0, start)
    assert "| 2/2 " in err  # A width that is named twice counts once.
    rows = sweeps.list_sweeps()[0].table()
    assert [(row["latent_dim"], row["epochs"]) for row in rows] == [(2, 2), (8, 2)]
    errors = [row["closed_form"] for row in rows]
    assert errors == sorted(errors, reverse=True) and 0.01 < errors[1] < errors[0] < 0.06


def _never_ends(settings, sweep, dataset):
    """Stand in for a trial that takes longer than the time budget."""
    yield sweeps.Trial(settings, (0.5,), 1.0)
    time.sleep(600)


def _fails_often(settings, sweep, dataset):
    """Stand in for a trial that kills its worker or reports an error."""
    if settings["batch_size"] == TINY_TRAIN.batch_size:
        os.kill(os.getpid(), signal.SIGKILL)
    yield sweeps.Trial(settings, (), 1.0, "The loss became nan.")


def _learns_at_its_rate(settings, sweep, dataset):
    """Stand in for a trial whose loss is its learning rate, so that the best trial is known."""
    for epochs in range(1, sweep.train.epochs + 1):
        yield sweeps.Trial(settings, (settings["learning_rate"],) * epochs, 1.0)


@pytest.fixture
def replace_trial(libraries, monkeypatch):
    """Return a function that puts another in the place of a trial; Ray sends its code to the workers."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield lambda trial: monkeypatch.setattr(search, "_train", trial)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
def test_only_trials_that_ended_by_themselves_are_recorded(replace_trial, tiny_sweep, address, capfd):
    replace_trial(_never_ends)
    assert search.run_sweep(tiny_sweep, 2, minutes=0.05, address=address).trials == ()
    replace_trial(_fails_often)
    assert search.run_sweep(tiny_sweep, 2, minutes=0, address=address).trials == ()
    told = []
    done = search.run_sweep(tiny_sweep, 2, address=address, on_trial=told.append)
    assert {trial.settings["batch_size"] == 16: trial.error for trial in told} == {
        True: "3 workers died at this trial.",
        False: "The loss became nan.",
    }
    assert [trial.error for trial in done.trials] == ["The loss became nan."]
    assert not done.finished
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_trial_whose_worker_dies_starts_again(replace_trial, tiny_sweep, address, tmp_path):
    def dies_once(settings, sweep, dataset):
        yield sweeps.Trial(settings, (0.5,), 1.0)
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield sweeps.Trial(settings, (0.5, 0.4), 1.0)

    replace_trial(dies_once)
    (trial,) = search.run_sweep(tiny_sweep, 1, address=address).trials
    assert (trial.val_loss, trial.error) == ((0.5, 0.4), None)
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_poor_trials_are_stopped_early_also_after_a_resume(replace_trial, address):
    replace_trial(_learns_at_its_rate)
    train = TINY_TRAIN.replace(epochs=8, learning_rate=1e-4)  # The first trial is the best that there can be.
    plan = sweeps.plan_sweep("rates", "notebook", TINY_MODEL, train, set(TINY_MODEL.to_dict()) | {"shift"})
    first = search.run_sweep(plan, 4, address=address)
    assert first.finished[0].settings["learning_rate"] == 1e-4
    assert len({json.dumps(trial.settings) for trial in first.trials}) == 4
    resumed = search.run_sweep(plan, 8, address=address, resume=True)
    assert resumed.trials[:4] == first.trials
    assert all(len(trial.val_loss) < 8 for trial in resumed.trials[4:])  # The study knows the best loss of before.


@pytest.mark.slow
def test_a_node_without_the_project_ends_the_sweep(libraries, tiny_sweep, address, monkeypatch):
    monkeypatch.setattr(search, "_train", _fails_often)  # The workers cannot import this module of tests.
    with pytest.raises(ClusterError, match=r"A worker cannot start \(.*No module named .*Install the project"):
        search.run_sweep(tiny_sweep, 1, address=address)


def test_without_its_libraries_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["sweep", "--preset", "quick", "--dataset", "synthetic"]) == 1
    message = "error: Ray is not installed. Run pip install -r requirements-cluster.txt.\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "linear"], "linear is not trained: it has 0 epochs. Choose another preset, or set --epochs"),
        (["--preset", "unet-vivid"], "A sweep begins with new weights; unet-vivid starts from unet"),
        (["--preset", "conv", "--latent-dims", "16,24"], "conv needs the target rgb and a latent_dim divisible by 16"),
        (
            ["--preset", "dense", "--latent-dims", "600"],
            "latent_dim must be a whole number from 1 to 512, received 600",
        ),
        (["--name", "../x"], "'../x' is not a valid name"),
        (["--name", "notebook-gray"], "A model named notebook-gray is already here"),
        (["--name", "quick"], "quick is a preset. Choose another --name"),
        (["--latent-dims="], "--latent-dims takes whole numbers like 8,32,128"),
        (
            ["--preset", "conv", *EVERY_SETTING],
            "Every setting is given, so there is nothing to search",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused_in_a_sentence(words, message, capsys):
    assert cli.main(["sweep", *words]) == 1
    assert message in capsys.readouterr().err
    assert not (config.home() / "sweeps").exists()


@pytest.mark.parametrize("words", [["--trials", "0"], ["--trials", "2.5"], ["--time-budget", "-1"], ["--trials", "x"]])
def test_numbers_that_are_not_above_zero_are_wrong_usage(words, capsys):
    assert cli.main(["sweep", *words]) == 2
    error = capsys.readouterr().err
    assert words[0] in error and words[1] in error


def test_bottlenecks_that_do_not_suit_the_architecture_are_left_out():
    suits = {name: sweeps.suitable_latent_dims(PRESETS[name].model) for name in ("dense", "conv", "unet")}
    assert suits["dense"] == (2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert (suits["conv"], suits["unet"]) == ((16, 32, 64, 128, 256, 512), (4, 8, 16, 32, 64, 128, 256, 512))


def test_trials_come_back_as_they_were_written(tiny_sweep):
    worse = sweep_trial(val_loss=[0.03, 0.025], settings=sweep_trial()["settings"] | {"activation": "relu"})
    stopped, failed = sweep_trial(val_loss=[0.01]), sweep_trial(val_loss=[], error="3 workers died at this trial.")
    write_sweep(tiny_sweep, worse, stopped, failed, sweep_trial())
    read = sweeps.read_sweep("tiny")
    assert read.to_dict() == tiny_sweep.to_dict()
    assert [trial.val_loss for trial in read.finished] == [(0.03, 0.02), (0.03, 0.025)]
    model, train = read.configure(read.finished[0].settings)
    assert (train.learning_rate, train.batch_size, model.activation, model.latent_dim) == (0.0012, 64, "gelu", 4)
    assert [row["val_loss"] for row in read.table()] == [0.02, 0.025, 0.01, None]
    *settings, loss = read.coordinates()
    assert [axis.name for axis in settings] == ["learning_rate", "batch_size", "weight_decay", "activation"]
    assert settings[-1].heights == [0, 1 / 3, 0] and settings[-1].ticks["tanh"] == 1
    assert loss.heights == pytest.approx([1, 1, 0])


@pytest.mark.parametrize(
    "line",
    [
        sweep_trial(settings={}),
        sweep_trial(settings=sweep_trial()["settings"] | {"latent_dim": 512}),
        sweep_trial(settings=sweep_trial()["settings"] | {"batch_size": 10**9}),
        sweep_trial(settings=sweep_trial()["settings"] | {"learning_rate": "much"}),
        sweep_trial(settings=sweep_trial()["settings"] | {"learning_rate": float("nan")}),
        sweep_trial(val_loss=[float("nan")]),
        sweep_trial(val_loss=[0.1, -0.1]),
        sweep_trial(val_loss=[0, 0]),
        sweep_trial(val_loss=[0.1, 0.1, 0.1]),
        sweep_trial(seconds=10**400),
        sweep_trial(settings=sweep_trial()["settings"] | {"batch_size": 64.0}),
        sweep_trial(settings=sweep_trial()["settings"] | {"weight_decay": False}),
        sweep_trial(val_loss=[]),
        sweep_trial(val_loss=None),
        sweep_trial(seconds=float("inf")),
        [],
        7,
    ],
)
def test_a_line_that_is_no_trial_is_left_out(line, tiny_sweep):
    write_sweep(tiny_sweep, line, sweep_trial())
    assert len(sweeps.read_sweep("tiny").trials) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"preset": "nonsense"}',
        "\xff",
        pytest.param({"preset": "nonsense"}, id="preset"),
        pytest.param({"choices": {}}, id="no choices"),
        pytest.param({"choices": 3}, id="choices"),
        pytest.param({"choices": {"colour": [1, 2]}}, id="an unknown setting"),
        pytest.param({"choices": {"activation": ["gelu", 7]}}, id="a choice of another kind"),
        pytest.param({"choices": {"encoder_widths": ["8", "wide"]}}, id="widths"),
        pytest.param({"choices": {"learning_rate": [0, 1]}}, id="learning rate"),
        pytest.param({"closed_form": [0.1]}, id="closed form"),
        pytest.param(
            {"choices": {"latent_dim": [2]}, "closed_form": [float("nan")]},
            id="a closed-form loss that is not a number",
        ),
        pytest.param({"choices": {"latent_dim": [2]}, "closed_form": [10**400]}, id="a loss too large"),
        pytest.param({"choices": {"latent_dim": [2]}}, id="bottlenecks without the closed form"),
        pytest.param({"model": {"latent_dim": 10**6}}, id="model"),
    ],
)
def test_a_damaged_sweep_is_left_out_and_named_when_asked_for(content, tiny_sweep):
    write_sweep(tiny_sweep, sweep_trial())
    assert [one.name for one in sweeps.list_sweeps()] == ["tiny"]
    if isinstance(content, dict):
        content = json.dumps(json.loads(json.dumps(tiny_sweep.to_dict())) | content)
    (tiny_sweep.folder / "sweep.json").write_text(content, encoding="latin-1")
    assert sweeps.list_sweeps() == []
    with pytest.raises(ConfigError, match=r"The sweep tiny is damaged \(.*\). Delete its folder .*tiny\."):
        sweeps.read_sweep("tiny")


def test_a_failed_trial_is_never_the_best(tiny_sweep):
    write_sweep(tiny_sweep, sweep_trial(val_loss=[0.01, 0.01], error="The loss became nan."), sweep_trial())
    assert [row["val_loss"] for row in sweeps.read_sweep("tiny").table()] == [0.02, 0.01]


def test_nothing_is_resumed_or_trained_that_is_not_there(libraries, tiny_sweep, capsys):
    assert cli.main(["sweep", "--preset", "quick", "--dataset", "synthetic", "--resume"]) == 1
    assert "There is no sweep quick-sweep to resume. Start it without --resume." in capsys.readouterr().err
    assert cli.main(["sweep", "--preset", "quick", "--dataset", "samples"]) == 1
    assert "The data set samples has no training images. Choose cifar10" in capsys.readouterr().err


def test_a_model_that_is_not_the_sweeps_is_not_overwritten(libraries, save_tiny, capsys):
    model, train = PRESETS["notebook"].model, TINY_TRAIN.replace(batch_size=256)
    plan = sweeps.plan_sweep("mine", "notebook", model.replace(latent_dim=4), train, latent_dims=(2,))
    write_sweep(sweeps.replace(plan, closed_form=(0.04,)), sweep_trial(settings={"latent_dim": 2}))
    before = save_tiny("mine").checksum
    words = ["--dataset", "synthetic", "--train-images", "64", "--epochs", "2"]
    words += ["--latent-dim", "4", "--latent-dims", "2"]
    assert cli.main(["sweep", "--preset", "notebook", "--name", "mine", "--resume", *words]) == 1
    assert "A model named mine is already here" in capsys.readouterr().err
    assert library.find_model("mine").checksum == before


def test_a_sweep_that_is_running_cannot_be_started_again(libraries, tiny_sweep):
    import filelock

    tiny_sweep.folder.mkdir(parents=True)
    with filelock.FileLock(tiny_sweep.folder / "lock"), pytest.raises(ConfigError, match=r"tiny is running\. Wait"):
        search.run_sweep(tiny_sweep, 1)
