"""Searches settings, or tries bottlenecks: many trainings with Ray Tune, each on one core of some node.

A sweep is a folder in COLORIZER_HOME/sweeps: `sweep.json` says what is tried, `trials.jsonl` has a line for each trial
that is done, which is all that a resumed sweep reads. Tune's own state is pickled, and never read again.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from colorizer import cluster, config, data
from colorizer.config import ModelConfig, Preset, TrainConfig
from colorizer.errors import ClusterError, ColorizerError, ConfigError, TrainingError
from colorizer.evaluation import closed_form_losses
from colorizer.storage import delete_folder, read_json, write_json

LATENT_DIMS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
_LEARNING_RATES = (1e-4, 1e-2)  # any between, evenly by their logarithm
_CHOICES: dict[str, tuple[Any, ...]] = {
    "batch_size": (64, 128, 256, 512),
    "weight_decay": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
    "shift": (0, 1, 2, 3, 4),
    "activation": ("relu", "gelu", "silu", "tanh"),
}
_DENSE_CHOICES = {
    "encoder_widths": ((512,), (1024,), (512, 128), (1024, 512), (1536, 512), (2048, 512)),
    "decoder_widths": ((256,), (512,), (128, 512), (512, 512), (1024, 512), (512, 512, 384)),
}
_UNET_CHOICES = {"dropout": (0.0, 0.1, 0.2, 0.3, 0.4)}
_REDUCTION = 2  # of so many trials at a rung of ASHA, one goes on
_MAX_DEATHS = 3  # of a trial's worker or node, before the trial counts as failed
_MAX_TRIALS_BYTES = 16 * 2**20
_WORST_LOSS = 1.0  # that the search is told of a trial that failed


@dataclass(frozen=True)
class Trial:
    """A training of a sweep.

    Attributes:
        settings: the value of each setting that is tried; widths as text.
        val_loss: validation `mse` after each epoch; shorter than the epochs where the trial was stopped early.
        seconds: of its wall time.
        error: why it failed, or None.
    """

    settings: dict[str, Any]
    val_loss: tuple[float, ...]
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Coordinate:
    """One axis of parallel coordinates: the height, 0 to 1, of each trial, and of each label beside the axis."""

    name: str
    heights: list[float]
    ticks: dict[str, float]


@dataclass(frozen=True)
class Sweep:
    """What is tried, and what came of it so far.

    Attributes:
        name: of its folder, and of the model that is saved.
        preset: whose settings it starts from.
        model, train: those settings.
        choices: of each setting that is tried, its values, widths as text; of `learning_rate` lowest and highest.
        closed_form: validation `mse` of the best linear autoencoder of each `latent_dim` tried; else empty.
        trials: in the order in which they ended.
    """

    name: str
    preset: str
    model: ModelConfig
    train: TrainConfig
    choices: dict[str, tuple[Any, ...]]
    closed_form: tuple[float, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return _home() / self.name

    @property
    def finished(self) -> list[Trial]:
        """The trials that ran for all epochs, best first."""
        whole = [trial for trial in self.trials if len(trial.val_loss) == self.train.epochs and not trial.error]
        return sorted(whole, key=lambda trial: trial.val_loss[-1])

    def allows(self, settings: dict[str, Any]) -> bool:
        """Whether these are settings of a trial of this sweep."""
        if settings.keys() != self.choices.keys():
            return False
        low, high = self.choices.get("learning_rate", _LEARNING_RATES)
        return all(
            low <= value <= high if key == "learning_rate" else value in self.choices[key]
            for key, value in settings.items()
        )

    def configure(self, trial: Trial) -> tuple[ModelConfig, TrainConfig]:
        """The configurations of a trial."""
        return _apply(self.model, self.train, trial.settings)

    @property
    def title(self) -> str:
        """What it is, in a line."""
        tried = "bottlenecks" if self.closed_form else "trials"
        return f"{self.name}: {len(self.trials)} {tried} from the preset {self.preset}"

    def table(self) -> list[dict[str, Any]]:
        """The trials as rows: settings, epochs, val_loss, seconds, and with bottlenecks the closed form's loss.

        Best first, those that were stopped early behind them; or by bottleneck.
        """
        losses = dict(zip(self.choices.get("latent_dim", ()), self.closed_form, strict=False))
        rows = []
        for trial in self.trials:
            values = asdict(self.configure(trial)[0]) | asdict(self.configure(trial)[1])
            row = {key: _as_choice(values[key]) for key in self.choices}
            row |= {"epochs": len(trial.val_loss), "val_loss": trial.val_loss[-1] if trial.val_loss else None}
            row |= {"closed_form": losses[row["latent_dim"]]} if losses else {}
            rows.append(row | {"seconds": trial.seconds, "error": trial.error})
        order = (lambda row: row["latent_dim"]) if losses else (lambda row: (-row["epochs"], row["val_loss"] or 1))
        return sorted(rows, key=order)

    def coordinates(self) -> list["Coordinate"]:
        """Parallel coordinates of those rows of `table` that have a loss: one for each setting, and the loss.

        The axis of the loss ends at the median; what is worse is drawn there.
        """
        rows = [row for row in self.table() if row["val_loss"]]
        axes = []
        for name in (*self.choices, "val_loss"):
            if name in ("learning_rate", "val_loss"):
                values = sorted(row[name] for row in rows)
                shown = values if name == "learning_rate" else values[: len(values) // 2 + 1]
                low, high = math.log(shown[0]), math.log(shown[-1])
                heights = [min(1.0, (math.log(row[name]) - low) / (high - low or 1)) for row in rows]
                style = ".2g" if name == "learning_rate" else ".5f"
                shares = (0, 0.25, 0.5, 0.75, 1)
                ticks = {format(math.exp(low + share * (high - low)), style): share for share in shares}
            else:
                choices = sorted(self.choices[name], key=_order)
                places = {choice: index / max(1, len(choices) - 1) for index, choice in enumerate(choices)}
                heights = [places[row[name]] for row in rows]
                ticks = {
                    f"{choice:g}" if isinstance(choice, float) else f"{choice}": place
                    for choice, place in places.items()
                }
            axes.append(Coordinate(name, heights, ticks))
        return axes

    def to_dict(self) -> dict[str, Any]:
        """Return what sweep.json holds."""
        content = asdict(self)
        return {key: value for key, value in content.items() if key not in ("name", "trials")}


def plan_sweep(
    name: str, preset: str, model: ModelConfig, train: TrainConfig, fixed: tuple[str, ...] = (), latent_dims: tuple = ()
) -> Sweep:
    """Say what a sweep is to try.

    Args:
        name: see `config.validate_name`.
        preset: name of the preset that `model` and `train` come from.
        model, train: settings of the first trial, which the others vary.
        fixed: settings that none varies.
        latent_dims: try only these bottlenecks; by default settings are searched.

    Raises:
        ConfigError: there is nothing to train, or a bottleneck does not fit the architecture.
    """
    config.validate_name(name)
    if not train.epochs:
        raise ConfigError(f"{preset} is not trained: it has 0 epochs. Choose another preset, or set --epochs.")
    if train.init_from:
        raise ConfigError(f"A sweep begins with new weights; {preset} starts from {train.init_from}. Choose another.")
    if latent_dims:
        for latent_dim in latent_dims:
            model.replace(latent_dim=latent_dim)
        return Sweep(name, preset, model, train, {"latent_dim": tuple(sorted(set(latent_dims)))})
    own = {"dense": _DENSE_CHOICES, "conv": {}, "unet": _UNET_CHOICES}[model.architecture]
    settings = model.to_dict() | train.to_dict()
    choices: dict[str, tuple[Any, ...]] = {"learning_rate": _LEARNING_RATES}
    for key, values in (_CHOICES | own).items():
        choices[key] = tuple(map(_as_choice, dict.fromkeys((*values, settings[key]))))
    choices = {key: values for key, values in choices.items() if key not in fixed}
    if not choices:
        raise ConfigError("Every setting is given, so there is nothing to search. Leave some out.")
    return Sweep(name, preset, model, train, choices)


def suitable_latent_dims(model: ModelConfig) -> tuple[int, ...]:
    """Those of `LATENT_DIMS` that suit the architecture."""
    suitable = []
    for latent_dim in LATENT_DIMS:
        with contextlib.suppress(ConfigError):
            suitable.append(model.replace(latent_dim=latent_dim).latent_dim)
    return tuple(suitable)


def run_sweep(
    sweep: Sweep,
    trials: int,
    minutes: float = math.inf,
    address: str = "local",
    resume: bool = False,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Sweep:
    """Run trials until there are as many as wanted, or the time is over.

    A search is led by Optuna's tree-structured Parzen estimator, its first trial has the settings that it starts from,
    and ASHA (Li et al. 2020) stops the trials that fall behind. Of bottlenecks each is trained to the end.

    Args:
        sweep: of `plan_sweep`.
        trials: of a search; the number of bottlenecks is given by them.
        minutes: after which trials under way are given up.
        address: `local` to start Ray on this machine, or HOST:PORT of a cluster's head.
        resume: go on with the sweep of that name, if there is one; trials that are done are not repeated.
        on_trial: told of each trial when it is done, those of before included.

    Returns:
        the sweep with its trials.

    Raises:
        ClusterError: Ray is missing, the cluster cannot be reached or has no room.
        ConfigError: there is a sweep of that name, other than `resume` expects.
        DataError: the data set cannot be loaded.
    """
    ray = cluster.import_ray()
    try:
        import optuna  # noqa: F401
        import ray.tune
    except ImportError as error:
        message = f"{error.name} is not installed. Run pip install -r requirements-cluster.txt."
        raise ClusterError(message) from None
    dataset = data.load_dataset(sweep.train.dataset)
    if "latent_dim" in sweep.choices:
        trials = len(sweep.choices["latent_dim"])
        losses = closed_form_losses(dataset.validation.images, sweep.model.target, sweep.choices["latent_dim"])
        sweep = replace(sweep, closed_form=tuple(losses))
    with contextlib.ExitStack() as stack:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(filelock.FileLock(sweep.folder / "lock", timeout=0))
        except filelock.Timeout:
            raise ConfigError(f"The sweep {sweep.name} is under way. Wait for it, or choose another --name.") from None
        done = _take_up(sweep, resume)
        for trial in done:
            on_trial(trial)
        if len(done) < trials:
            images = [np.asarray(split.images) for split in (dataset.train, dataset.validation)]
            stack.enter_context(cluster.connect(ray, address, sum(part.nbytes for part in images)))
            lines = stack.enter_context((sweep.folder / "trials.jsonl").open("a", encoding="utf-8", buffering=1))
            lines.write("\n")  # a line that was cut by a kill ends here

            def record(trial: Trial) -> None:
                lines.write(json.dumps(asdict(trial)) + "\n")
                on_trial(trial)

            _search(ray, sweep, images, done, trials - len(done), time.monotonic() + 60 * minutes, record)
        return read_sweep(sweep.name)


def _take_up(sweep: Sweep, resume: bool) -> tuple[Trial, ...]:
    """Begin the folder of a sweep, or return the trials that are in it."""
    path = sweep.folder / "sweep.json"
    before = read_sweep(sweep.name) if path.exists() else None
    if before is None or not before.trials:
        write_json(path, sweep.to_dict())
        return ()
    if not resume:
        raise ConfigError(f"A sweep named {sweep.name} is here. Go on with --resume, or choose another --name.")
    for key, value in sweep.to_dict().items():
        if key != "closed_form" and value != (there := before.to_dict()[key]):
            raise ConfigError(f"The sweep {sweep.name} has another {key}: {there}. Resume it with the same options.")
    return before.trials


def _search(
    ray: Any,
    sweep: Sweep,
    images: list[np.ndarray],
    done: tuple[Trial, ...],
    wanted: int,
    deadline: float,
    record: Callable[[Trial], None],
) -> None:
    """Run `wanted` trials, knowing those that are `done`, and record each."""
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    epochs = sweep.train.epochs

    class Recorder(tune.Callback):
        def __reduce__(self) -> tuple:
            return tune.Callback, ()  # Tune pickles what it would need to resume

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            result = trial.last_result
            val_loss, error = tuple(result.get("curve", ())), result.get("error")
            in_time = time.monotonic() < deadline and scheduler is not None  # so ASHA stopped it
            if len(val_loss) == epochs or error or in_time:
                record(Trial(trial.config, val_loss, round(result["time_total_s"], 1), error))

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            record(Trial(trial.config, (), 0.0, f"{_MAX_DEATHS} workers died at this trial."))

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: optuna.distributions.CategoricalDistribution(values) for key, values in sweep.choices.items()}
    if "latent_dim" in sweep.choices:
        scheduler = None
        settings = [{"latent_dim": latent_dim} for latent_dim in sweep.choices["latent_dim"]]
    else:
        scheduler = ASHAScheduler(max_t=epochs, grace_period=max(1, epochs // 4), reduction_factor=_REDUCTION)
        first = sweep.model.to_dict() | sweep.train.to_dict()
        settings = [{key: _as_choice(first[key]) for key in sweep.choices}]
        if "learning_rate" in distributions:
            low, high = sweep.choices["learning_rate"]
            distributions["learning_rate"] = optuna.distributions.FloatDistribution(low, high, log=True)
    known = [trial.settings for trial in done]
    searcher = OptunaSearch(
        distributions,
        "val_loss",
        "min",
        points_to_evaluate=[values for values in settings if values not in known],
        sampler=optuna.samplers.TPESampler(seed=sweep.train.seed + len(done), constant_liar=True),
    )
    for trial in done:
        searcher.add_evaluated_point(trial.settings, _WORST_LOSS if trial.error else trial.val_loss[-1])
    train = tune.with_parameters(_train, model=sweep.model, train=sweep.train, images=images)
    with contextlib.ExitStack() as stack:
        scratch = sweep.folder / "scratch"
        delete_folder(scratch)  # of a sweep that was killed
        stack.callback(delete_folder, scratch)
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1, "memory": cluster.WORKER_BYTES}),
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=wanted,
                max_concurrent_trials=cluster.count_room(ray),
                time_budget_s=max(0.0, deadline - time.monotonic()) if deadline < math.inf else None,
                reuse_actors=False,  # TensorFlow does not give back all memory of a graph
            ),
            run_config=tune.RunConfig(
                name=sweep.name,
                storage_path=str(scratch),
                failure_config=tune.FailureConfig(max_failures=_MAX_DEATHS - 1),
                callbacks=[Recorder()],
                verbose=0,
            ),
        ).fit()


def _train(settings: dict[str, Any], model: ModelConfig, train: TrainConfig, images: list[np.ndarray]) -> None:
    """Train one trial in a worker of its own, and tell Tune of each epoch."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from ray import tune

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from colorizer import training

    splits = [data.Split(part, np.zeros(len(part), np.uint8)) for part in images]
    dataset = data.Dataset(train.dataset, *splits, splits[-1])
    val_loss: list[float] = []

    def report(event: Any) -> None:
        if isinstance(event, training.Epoch):
            val_loss.append(event.val_loss)
            tune.report({"val_loss": event.val_loss, "curve": list(val_loss)})

    try:
        training.train(*_apply(model, train, settings), dataset, report)
    except TrainingError as error:  # such as a loss that is no longer finite
        tune.report({"val_loss": _WORST_LOSS, "curve": list(val_loss), "error": str(error)})


def _order(choice: Any) -> Any:
    """Numbers by size, widths by their sum, activations by name."""
    if isinstance(choice, str):
        widths = [int(part) for part in choice.split(",") if part.isdigit()]
        return sum(widths), choice
    return choice


def _as_choice(value: Any) -> Any:
    """A setting's value as Optuna and JSON take it: widths become text."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _apply(model: ModelConfig, train: TrainConfig, settings: dict[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """Change the settings of a trial; learning rates have two digits."""
    settings = dict(settings)
    for key in settings:
        if key.endswith("_widths"):
            settings[key] = tuple(map(int, filter(None, settings[key].split(","))))
        elif key == "learning_rate":
            settings[key] = float(f"{settings[key]:.2g}")
    of_model = {key: value for key, value in settings.items() if hasattr(model, key)}
    of_train = {key: value for key, value in settings.items() if hasattr(train, key)}
    return model.replace(**of_model), train.replace(**of_train)


def _home() -> Path:
    return config.home() / "sweeps"


def list_sweeps() -> list[Sweep]:
    """The sweeps with a finished trial, by name; folders that cannot be read are left out."""
    sweeps = []
    for path in sorted(_home().glob("*/sweep.json")):
        with contextlib.suppress(ConfigError):
            sweeps.append(read_sweep(path.parent.name))
    return [sweep for sweep in sweeps if sweep.finished]


def best_presets(sweeps: list[Sweep]) -> dict[str, Preset]:
    """The best configuration of each sweep, by the sweep's name; each has the name of the preset that it began with."""
    presets = {}
    for sweep in sweeps:
        best, trials = sweep.finished[0], len(sweep.trials)
        summary = f"The best of {trials} trials of a sweep from {sweep.preset}: validation mse {best.val_loss[-1]:.5f}."
        presets[sweep.name] = Preset(sweep.preset, summary, *sweep.configure(best))
    return presets


def read_sweep(name: str) -> Sweep:
    """Read a sweep and its trials; a line that is none is left out. Without a sound sweep.json, raise `ConfigError`."""
    path = _home() / config.validate_name(name) / "sweep.json"
    try:
        content = read_json(path)
        model, train = ModelConfig.from_dict(content["model"]), TrainConfig.from_dict(content["train"])
        choices = {key: tuple(values) for key, values in content["choices"].items()}
        closed_form = tuple(map(float, content["closed_form"]))
        sweep = Sweep(name, config.get_preset(content["preset"]).name, model, train, choices, closed_form)
        if not choices or (closed_form and len(closed_form) != len(choices["latent_dim"])):
            raise ConfigError("it has no choices, or not as many losses of the closed form")
        return replace(sweep, trials=tuple(_read_trials(sweep)))
    except (ColorizerError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"The sweep {name} is damaged ({error}). Delete its folder {path.parent}.") from error


def _read_trials(sweep: Sweep) -> list[Trial]:
    path, trials = sweep.folder / "trials.jsonl", []
    if not path.exists():
        return []
    if path.stat().st_size > _MAX_TRIALS_BYTES:
        raise ConfigError("trials.jsonl is too large")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ColorizerError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            values = json.loads(line)
            settings, val_loss = values["settings"], tuple(map(float, values["val_loss"]))
            trial = Trial(settings, val_loss, float(values["seconds"]), values["error"] and str(values["error"]))
            sound = all(map(math.isfinite, (*val_loss, trial.seconds))) and (val_loss or trial.error)
            if sound and sweep.allows(settings):
                sweep.configure(trial)
                trials.append(trial)
    return trials
