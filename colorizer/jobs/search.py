"""Runs a sweep: Optuna chooses the settings of each trial and stops the poor ones, Ray trains them.

Each trial is a Ray task in a process of its own with one core, on this machine or on a cluster. The only record of a
sweep is its file trials.jsonl. A resumed sweep tells a new Optuna study what that file holds, so nothing is unpickled.
"""

import contextlib
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import filelock
import numpy as np

from colorizer.data import datasets
from colorizer.errors import ColorizerError, ConfigError
from colorizer.jobs import archives
from colorizer.jobs.sweeps import Sweep, Trial, read_sweep
from colorizer.models.evaluation import closed_form_losses
from colorizer.storage import write_json

_REDUCTION = 2  # At each rung of successive halving, one of this many trials goes on.
_MAX_TRIES = 3  # A trial whose worker or node died this many times counts as failed.
_WORST_LOSS = 1.0  # The search is told this loss for a trial that failed.


def run_sweep(
    sweep: Sweep,
    trials: int,
    minutes: float = math.inf,
    address: str = "local",
    resume: bool = False,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Sweep:
    """Run trials until there are as many as wanted, or the time is over.

    Optuna's tree-structured Parzen estimator leads the search, whose first trial has the settings of the preset, and
    asynchronous successive halving (Li et al. 2020) stops the trials that fall behind. In a sweep of bottlenecks, each
    bottleneck is trained for all epochs.

    Args:
        sweep: the plan, made by `plan_sweep`.
        trials: number of trials of a search, earlier ones included; a sweep of bottlenecks has one for each.
        minutes: time in minutes after which unfinished trials are given up.
        address: `local` to start Ray on this machine, or HOST:PORT of a cluster's head.
        resume: go on with the sweep of that name; trials that are done are not repeated.
        on_trial: called with each trial when it is done, and first with those of the resumed sweep.

    Returns:
        the sweep with its trials.

    Raises:
        ClusterError: Ray is missing, or the cluster cannot be reached, has no room, or cannot run the project.
        ConfigError: a sweep of that name exists and `resume` is False, or the sweep to resume is missing or differs.
        DataError: the data set cannot be loaded.
    """
    ray, optuna = archives.require("ray"), archives.require("optuna")
    dataset = datasets.load_dataset(sweep.train.dataset)
    if not len(dataset.train.images):
        raise ConfigError(f"The data set {dataset.name} has no training images. Choose cifar10 or synthetic.")
    if "latent_dim" in sweep.choices:
        trials = len(sweep.choices["latent_dim"])
        losses = closed_form_losses(dataset.validation.images, sweep.model.target, sweep.choices["latent_dim"])
        sweep = replace(sweep, closed_form=tuple(losses))
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(sweep.folder / "lock", timeout=0))
        except filelock.Timeout:
            raise ConfigError(f"The sweep {sweep.name} is running. Wait for it, or choose another --name.") from None
        sweep = replace(sweep, trials=_open_folder(sweep, resume))
        for trial in sweep.trials:
            on_trial(trial)
        if len(sweep.trials) < trials:
            deadline = time.monotonic() + 60 * minutes
            # The workers get plain arrays, because another node cannot map the files of this machine.
            parts = (dataset.train, dataset.validation)
            splits = [datasets.Split(np.asarray(part.images), np.asarray(part.labels)) for part in parts]
            stack.enter_context(archives.connect(ray, address, sum(split.images.nbytes for split in splits)))
            dataset = datasets.Dataset(dataset.name, *splits, splits[-1])
            lines = stack.enter_context((sweep.folder / "trials.jsonl").open("a", encoding="utf-8", buffering=1))
            lines.write("\n")  # A kill may have left an unfinished line, which ends here.
            for trial, ended in _search(ray, optuna, sweep, dataset, trials, deadline):
                if ended:
                    lines.write(json.dumps(asdict(trial)) + "\n")
                on_trial(trial)
        return read_sweep(sweep.name)


def _open_folder(sweep: Sweep, resume: bool) -> tuple[Trial, ...]:
    """Write sweep.json for a new sweep; for a resumed one, return the trials in its folder."""
    path = sweep.folder / "sweep.json"
    if resume and not path.exists():
        raise ConfigError(f"There is no sweep {sweep.name} to resume. Start it without --resume.")
    before = read_sweep(sweep.name) if path.exists() else None
    if before is None or not before.trials:
        write_json(path, sweep.to_dict())
        return ()
    if not resume:
        raise ConfigError(f"A sweep named {sweep.name} exists. Go on with --resume, or choose another --name.")
    old, new = ({"preset": s.preset} | s.model.to_dict() | s.train.to_dict() | s.choices for s in (before, sweep))
    for key in old | new:
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"The sweep {sweep.name} has the {key} {old.get(key)}, received {new.get(key)}. "
                "Resume it with the same options."
            )
    return before.trials


def _search(
    ray: Any, optuna: Any, sweep: Sweep, dataset: datasets.Dataset, wanted: int, deadline: float
) -> Iterator[tuple[Trial, bool]]:
    """Run trials until the sweep has as many as `wanted`; yield each, and whether it ended by itself.

    A trial whose workers died did not end by itself: it gets no line, so that a resumed sweep tries it again.
    """
    study, distributions = _open_study(optuna, sweep)
    # A process runs one trial only, because TensorFlow does not give back all memory of a graph.
    options = {"num_cpus": 1, "memory": archives.WORKER_BYTES, "max_calls": 1, "max_retries": _MAX_TRIES - 1}
    train, content = ray.remote(num_returns="streaming", **options)(_train), ray.put(dataset)
    running: dict[Any, Any] = {}  # It maps each Ray task to its Optuna trial.
    to_start = wanted - len(sweep.trials)
    while (to_start or running) and time.monotonic() < deadline:
        while to_start and len(running) < archives.count_room(ray):
            asked = study.ask(distributions)
            running[train.remote(asked.params, sweep, content)] = asked
            to_start -= 1
        # The loop looks for new nodes at least every ten seconds.
        ready, _ = ray.wait(list(running), timeout=max(0, min(10, deadline - time.monotonic())))
        for task in ready:
            asked, ended = running[task], True
            try:
                trial = ray.get(next(task))
            except ray.exceptions.RayTaskError as error:
                raise archives.cannot_start(repr(error.cause)) from error
            except ray.exceptions.RayError:  # Its worker or its node died.
                ended, trial = False, Trial(asked.params, (), 0.0, f"{_MAX_TRIES} workers died at this trial.")
            if not trial.error:
                asked.report(trial.val_loss[-1], len(trial.val_loss))
            if trial.error or len(trial.val_loss) == sweep.train.epochs or asked.should_prune():
                _tell(optuna, study, asked, trial, sweep.train.epochs)
                del running[task]
                ray.cancel(task, force=True)
                yield trial, ended


def _open_study(optuna: Any, sweep: Sweep) -> tuple[Any, dict[str, Any]]:
    """Return an Optuna study that knows the trials of the sweep, and the distribution of each setting."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: optuna.distributions.CategoricalDistribution(values) for key, values in sweep.choices.items()}
    if "latent_dim" in sweep.choices:
        first = [{"latent_dim": latent_dim} for latent_dim in sweep.choices["latent_dim"]]
        pruner = optuna.pruners.NopPruner()
    else:
        first = [sweep.settings_of(sweep.model, sweep.train)]
        pruner = optuna.pruners.SuccessiveHalvingPruner(max(1, sweep.train.epochs // 4), _REDUCTION)
    if "learning_rate" in distributions:
        low, high = sweep.choices["learning_rate"]
        distributions["learning_rate"] = optuna.distributions.FloatDistribution(low, high, log=True)
    # With constant_liar the sampler keeps away from the settings of trials that are still running.
    sampler = optuna.samplers.TPESampler(seed=sweep.train.seed + len(sweep.trials), constant_liar=True)
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    for trial in sweep.trials:
        study.enqueue_trial(trial.settings)
        asked = study.ask(distributions)
        for epoch, loss in enumerate(trial.val_loss, 1):
            asked.report(loss, epoch)
            asked.should_prune()  # The pruner notes the loss at its rungs, against which it judges later trials.
        _tell(optuna, study, asked, trial, sweep.train.epochs)
    known = [trial.settings for trial in sweep.trials]
    for settings in first:
        if settings not in known:
            study.enqueue_trial(settings)
    return study, distributions


def _tell(optuna: Any, study: Any, asked: Any, trial: Trial, epochs: int) -> None:
    """Tell the study how a trial ended: it failed, ran for all epochs, or was stopped early."""
    if trial.error:
        study.tell(asked, _WORST_LOSS)
    elif len(trial.val_loss) == epochs:
        study.tell(asked, trial.val_loss[-1])
    else:
        study.tell(asked, state=optuna.trial.TrialState.PRUNED)


def _train(settings: dict[str, Any], sweep: Sweep, dataset: datasets.Dataset) -> Iterator[Trial]:
    """Train one trial in a worker; yield the trial so far after each epoch, or with the error that ended it."""
    from colorizer.training import loop

    loop.use_one_core()
    started, val_loss, events = time.perf_counter(), [], queue.SimpleQueue()

    def train() -> None:
        try:
            loop.train(*sweep.configure(settings), dataset, events.put)
        except Exception as error:  # Another try would not help, for example after a loss that is not finite.
            events.put(str(error) if isinstance(error, ColorizerError) else repr(error))
        events.put(None)

    threading.Thread(target=train, daemon=True).start()
    for event in iter(events.get, None):
        if isinstance(event, loop.Epoch):
            val_loss.append(event.val_loss)
        if isinstance(event, loop.Epoch | str):
            error = event if isinstance(event, str) else None
            yield Trial(settings, tuple(val_loss), round(time.perf_counter() - started, 1), error)
