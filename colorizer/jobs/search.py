"""Runs a sweep with Ray Tune: many trainings, each in a process with one core, on this machine or on a cluster.

What a resumed sweep knows of its past are the lines of trials.jsonl. Tune's own state is pickled, and never read again.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TextIO

import filelock
import numpy as np

from colorizer.data import datasets
from colorizer.errors import ClusterError, ColorizerError, ConfigError
from colorizer.jobs import archives
from colorizer.jobs.sweeps import Sweep, Trial, read_sweep
from colorizer.models.evaluation import closed_form_losses
from colorizer.storage import delete_folder, write_json

_REDUCTION = 2  # of so many trials at a rung of ASHA, one goes on
_MAX_DEATHS = 3  # of a trial's worker or node, before the trial counts as failed
_WORST_LOSS = 1.0  # that the search is told of a trial that failed


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
        resume: go on with the sweep of that name; trials that are done are not repeated.
        on_trial: told of each trial when it is done, those of before included.

    Returns:
        the sweep with its trials.

    Raises:
        ClusterError: Ray is missing, the cluster cannot be reached or has no room.
        ConfigError: there is a sweep of that name, other than `resume` expects.
        DataError: the data set cannot be loaded.
    """
    ray = archives.import_ray()
    try:
        import optuna  # noqa: F401
        import ray.tune
    except ImportError as error:
        message = f"{error.name} is not installed. Run pip install -r requirements-cluster.txt."
        raise ClusterError(message) from None
    dataset = datasets.load_dataset(sweep.train.dataset)
    if not len(dataset.train.images):
        raise ConfigError(f"The data set {dataset.name} has no training images. Choose cifar10 or synthetic.")
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
        sweep = replace(sweep, trials=_take_up(sweep, resume))
        for trial in sweep.trials:
            on_trial(trial)
        if len(sweep.trials) < trials:
            images = [np.asarray(split.images) for split in (dataset.train, dataset.validation)]
            stack.enter_context(archives.connect(ray, address, sum(part.nbytes for part in images)))
            lines = stack.enter_context((sweep.folder / "trials.jsonl").open("a", encoding="utf-8", buffering=1))
            lines.write("\n")  # a line that was cut by a kill ends here

            _search(ray, sweep, images, trials, time.monotonic() + 60 * minutes, lines, on_trial)
        return read_sweep(sweep.name)


def _take_up(sweep: Sweep, resume: bool) -> tuple[Trial, ...]:
    """Begin the folder of a sweep, or return the trials that are in it."""
    path = sweep.folder / "sweep.json"
    if resume and not path.exists():
        raise ConfigError(f"There is no sweep {sweep.name} to resume. Start it without --resume.")
    before = read_sweep(sweep.name) if path.exists() else None
    if before is None or not before.trials:
        write_json(path, sweep.to_dict())
        return ()
    if not resume:
        raise ConfigError(f"A sweep named {sweep.name} is here. Go on with --resume, or choose another --name.")
    old, new = ({"preset": s.preset} | s.model.to_dict() | s.train.to_dict() | s.choices for s in (before, sweep))
    for key in old | new:
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"The sweep {sweep.name} has the {key} {old.get(key)}, received {new.get(key)}. "
                "Resume it with the same options."
            )
    return before.trials


def _search(
    ray: Any,
    sweep: Sweep,
    images: list[np.ndarray],
    wanted: int,
    deadline: float,
    lines: TextIO,
    on_trial: Callable[[Trial], None],
) -> None:
    """Run trials until the sweep has as many as `wanted`; tell of each, and write a line for all but dead workers."""
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
                ended = Trial(trial.config, val_loss, round(result["time_total_s"], 1), error)
                lines.write(json.dumps(asdict(ended)) + "\n")
                on_trial(ended)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            # No line, so a resume tries it again.
            on_trial(Trial(trial.config, (), 0.0, f"{_MAX_DEATHS} workers died at this trial."))

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables; the old output is silent at verbose=0
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # tracebacks of what is tried again
    distributions = {key: optuna.distributions.CategoricalDistribution(values) for key, values in sweep.choices.items()}
    if "latent_dim" in sweep.choices:
        scheduler = None
        settings = [{"latent_dim": latent_dim} for latent_dim in sweep.choices["latent_dim"]]
    else:
        scheduler = ASHAScheduler(max_t=epochs, grace_period=max(1, epochs // 4), reduction_factor=_REDUCTION)
        settings = [sweep.first_settings]
        if "learning_rate" in distributions:
            low, high = sweep.choices["learning_rate"]
            distributions["learning_rate"] = optuna.distributions.FloatDistribution(low, high, log=True)
    known = [trial.settings for trial in sweep.trials]
    searcher = OptunaSearch(
        distributions,
        "val_loss",
        "min",
        points_to_evaluate=[values for values in settings if values not in known],
        sampler=optuna.samplers.TPESampler(seed=sweep.train.seed + len(known), constant_liar=True),
    )
    for trial in sweep.trials:
        searcher.add_evaluated_point(trial.settings, _WORST_LOSS if trial.error else trial.val_loss[-1])
    train = tune.with_parameters(_train, sweep=sweep, images=images)
    scratch = sweep.folder / "scratch"
    delete_folder(scratch)  # of a sweep that was killed
    try:
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1, "memory": archives.WORKER_BYTES}),
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=wanted - len(known),
                max_concurrent_trials=archives.count_room(ray),
                time_budget_s=deadline - time.monotonic(),  # not 0, which Tune takes for no limit
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
    finally:
        delete_folder(scratch)


def _train(settings: dict[str, Any], sweep: Sweep, images: list[np.ndarray]) -> None:
    """Train one trial in a worker of its own, and tell Tune of each epoch."""
    archives.limit_tensorflow()
    from ray import tune

    from colorizer.training import loop

    splits = [datasets.Split(part, np.zeros(len(part), np.uint8)) for part in images]
    dataset = datasets.Dataset(sweep.train.dataset, *splits, splits[-1])
    val_loss: list[float] = []

    def report(event: Any) -> None:
        if isinstance(event, loop.Epoch):
            val_loss.append(event.val_loss)
            tune.report({"val_loss": event.val_loss, "curve": list(val_loss)})

    try:
        loop.train(*sweep.configure(settings), dataset, report)
    except Exception as error:  # such as a loss that is no longer finite: to try again would not help
        reason = str(error) if isinstance(error, ColorizerError) else repr(error)
        tune.report({"val_loss": _WORST_LOSS, "curve": list(val_loss), "error": reason})
