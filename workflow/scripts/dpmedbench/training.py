"""One training loop for every mechanism.

It draws batches as the cell's plan says, hands per-sample losses to the cell's engine, validates
each epoch, and goes on from a checkpoint where it was killed.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from pathlib import Path

import torch

from dpmedbench import (
    checkpoint,
    cost,
    devices,
    epoch_statistics,
    interruption,
    models,
    precision,
    pretrained,
    tasks,
)
from dpmedbench.console import Progress, say
from dpmedbench.dpsgd.training import PrivateTraining, build
from dpmedbench.inputs import to_input
from dpmedbench.mechanisms.none import OrdinaryTraining
from dpmedbench.optimization import average, make_optimizer, make_scheduler
from dpmedbench.planning import check_images, decisive, plan_for, randomness, run_seed
from dpmedbench.privacy.contract import ContractBroken, ContractMonitor
from dpmedbench.privacy.randomness import stream_seed
from dpmedbench.privacy.sampling import ShuffledSampler
from dpmedbench.training_data import Data

VALIDATION_BATCH = 16
PARTS = {"val": "validation", "test": "test", "test_noisy": "noisy test"}


class Trainer:
    """One cell while it trains.

    After `run`: `history` (a dict an epoch), `weights()`, `observed` (what the monitor saw), what
    it cost (`timer`, `peak`, `first_step_seconds`) and where (`place`), and `stepped`, whether it
    made a step itself.

    Args:
        settings: as made by `cells.settings`.
        execution: has device, checkpoint_seconds, physical_batch_size and cells_per_gpu, as
            `cells.execution` makes them; they may be others where the cell goes on from a
            checkpoint, but for the kind of device.
        data: the fold's records.
        state: folder of the checkpoint.
        code: digest of the code, part of the checkpoint's fingerprint.
        halvings: how often physical batches are halved (see `memory`).
    """

    def __init__(
        self,
        settings: dict,
        execution: dict,
        data: Data,
        state: Path,
        code: str = "",
        halvings: int = 0,
    ):
        self.settings, self.execution, self.data = settings, execution, data
        self.state, self.code, self.halvings = state, code, halvings
        self.options = options = settings["training"]
        self.started = time.monotonic()
        self.device = devices.choose(execution["device"])
        precision.check(options["precision"], self.device)
        precision.keep_float32()
        self.seed = run_seed(settings)
        self.task = tasks.load(data.task)(data.num_classes, **settings["task"])
        torch.manual_seed(stream_seed(self.seed, "weights"))
        self.network = models.of(settings["model"], data.channels, data.num_classes).to(self.device)
        self.average = copy.deepcopy(self.network) if options["ema_decay"] else None
        self.optimizer = make_optimizer(self.network, options)
        check_images(settings, data.perturbation)
        records = len(data.train[0])
        self.plan = plan_for(settings, self.network, records)
        self.monitor = self.plan and ContractMonitor(
            self.plan, self.network, records, every=self.plan.steps_per_epoch
        )
        self.steps_per_epoch = math.ceil(records / options["batch_size"])
        draws = randomness(settings, "sampling", "cpu")
        self.sampler = (
            self.plan.sampler(draws)
            if self.plan
            else ShuffledSampler(records, options["batch_size"], draws)
        )
        self.engine = self._engine()
        self.scheduler = make_scheduler(
            self.optimizer, options, options["epochs"] * self.steps_per_epoch
        )
        self.timer, self.peak = cost.StepTimer(self.device), cost.PeakMemory(self.device)
        self.history: list[dict] = []
        self.best: tuple[float, dict] | None = None
        self.first_step_seconds: float | None = None
        self.stepped = False
        self.place = {
            "device": cost.device_name(self.device, execution["cells_per_gpu"]),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }
        self.fingerprint = checkpoint.fingerprint(
            settings=decisive(settings),
            data=data.digest,
            weights=pretrained.digest(settings["model"]),
            code=code,
            torch=torch.__version__,
            device=self.device.type,
        )

    def run(self) -> None:
        """Train to the last epoch and check that the privacy plan was kept.

        Raises:
            UserError: where a loss is not finite, or (as ContractBroken) the privacy plan was not
                kept.
            Stopped: after the epoch in which SIGTERM came, with a checkpoint.
        """
        identity = self.settings["identity"]
        title = " ".join(str(identity[key]) for key in ("dataset", "model", "mechanism", "privacy"))
        epochs = self.options["epochs"]
        self._resume()
        self._upload()
        with (
            interruption.when_asked() as stopping,
            Progress(title, epochs, len(self.history)) as progress,
            checkpoint.Writer(self.state, self.fingerprint) as writer,
        ):
            for epoch in range(len(self.history) + 1, epochs + 1):
                self.history.append(self._epoch(epoch))
                stop = stopping() and epoch < epochs
                if writer.due(self.execution["checkpoint_seconds"]) or epoch == epochs or stop:
                    writer.save(checkpoint.state_of(self))
                progress.update(epoch, self._summary(self.history[-1]))
                if stop:
                    raise interruption.Stopped(f"stopped by SIGTERM after epoch {epoch}")
        self.observed = self.monitor.finish() if self.monitor else None

    @property
    def physical_batch_size(self) -> int:
        """The most images at once on the device in training."""
        return self._halved(self.execution["physical_batch_size"])

    @property
    def can_halve(self) -> bool:
        """Whether less than now could be at once on the device."""
        return max(self.physical_batch_size, self._validation_batch) > 1

    @property
    def _validation_batch(self) -> int:
        return self._halved(min(VALIDATION_BATCH, 4 * self.execution["physical_batch_size"]))

    def _halved(self, size: int) -> int:
        return max(1, size >> self.halvings)

    def _engine(self) -> OrdinaryTraining | PrivateTraining:
        if not self.plan:
            return OrdinaryTraining(self.network, self.optimizer)
        return build(
            self.settings["mechanism"],
            self.network,
            self.optimizer,
            self.plan,
            self.monitor,
            randomness(self.settings, "noise", self.device),
            torch.Generator(self.device).manual_seed(stream_seed(self.seed, "sparsification")),
        )

    def _upload(self) -> None:
        """Keep the decoded records on the device: no loader, no copies during training."""
        parts = self.data.on(self.device)
        self.images, self.targets = parts.pop("train")
        self.scored, self.constant = parts, {}
        for part, (_, targets) in self.scored.items():
            self.constant |= self.task.constant_row(self.data.train[1], targets, part)

    def _epoch(self, epoch: int) -> dict:
        """Train and validate one epoch; its row of the history."""
        self.peak.start()
        started = time.perf_counter()
        losses, samples, empty = [], 0, 0
        self.seen = self.task.scores() if self.task.FOLLOWS_TRAINING else None
        self.engine.model.train()
        for indices in self.sampler.epoch(self.steps_per_epoch):
            if self.monitor:
                self.monitor.drew(self.sampler, indices)
            trials = self.engine.trials
            rate = self.scheduler.get_last_lr()[0]  # of this step; the scheduler moves on in it
            self.timer.start()
            try:
                self._step(indices, losses)
            except ContractBroken:
                self._check_loss("training", losses)  # what breaks every promise
                raise
            self.timer.stop()
            special = self.engine.trials > trials or not self.stepped
            self.stepped = True
            if self.first_step_seconds is None:  # one of those that `cost.WARM_UP` leaves out
                self.timer.wait()
                self.first_step_seconds = time.monotonic() - self.started
            elif special:
                self.timer.forget()
            if special and self.steps_per_epoch > 1:
                self.peak.start()  # such a step takes more
            samples += len(indices)
            empty += len(indices) == 0
        self.timer.end_epoch()
        train_loss = self._check_loss("training", losses)
        self.peak.stop()  # before validation and accounting
        trained = time.perf_counter()
        validation = self._validate()
        ended = time.perf_counter()
        score = validation[self.task.SELECTED_BY]
        if self.options["selection"] == "best_validation" and (
            self.best is None or score > self.best[0] or math.isnan(self.best[0])
        ):
            self.best = (score, self._current_weights())
        elapsed = self.history[-1]["elapsed_seconds"] if self.history else 0.0
        return {
            "epoch": epoch,
            "step": epoch * self.steps_per_epoch,
            "samples": samples,
            "physical_batch_size": self.physical_batch_size,
            "empty_batches": empty,
            "seconds": trained - started,
            "validation_seconds": ended - trained,
            "elapsed_seconds": elapsed + ended - started,
            "train_loss": train_loss,
            **(self.task.row(self.seen.compute(), "train") if self.seen else {}),
            **validation,
            **self.constant,
            **epoch_statistics.gradient_row(self.engine.gradient_norms()),
            "effective_max_grad_norm": self.engine.clipping_norm,
            "learning_rate": rate,
        }

    def _check_loss(self, part: str, losses: list[torch.Tensor]) -> float:
        """The mean of `losses`, NaN where there is none; UserError where it is not finite."""
        return epoch_statistics.mean_loss(losses, part, len(self.history) + 1, self.options)

    def _step(self, indices: torch.Tensor, losses: list[torch.Tensor]) -> None:
        """One logical batch in physical ones, then one update; adds the detached losses."""
        indices = indices.to(self.device, non_blocking=True)
        parts = indices.split(self.physical_batch_size) if len(indices) else ()
        for part in parts:
            with self._autocast():
                logits = self.engine.model(to_input(self.images[part], self.device))
                loss = self.task.loss(logits, self.targets[part])
                if self.seen:
                    self.seen.update(logits, self.targets[part])
            self.engine.backward(loss)
            losses.append(loss.detach())
        self.engine.step()
        self.scheduler.step()
        if self.average:  # of the weights after each step, the first ones as they are
            first = self.scheduler.last_epoch == 1
            average(self.average, self.network, 0 if first else self.options["ema_decay"])

    def _validate(self) -> dict:
        """Loss and scores on what is not trained on, of the weights that would be reported now."""
        network = self.average or self.network
        network.eval()
        row, size = {}, self._validation_batch
        for part, (images, targets) in self.scored.items():
            scores, losses = self.task.scores(), []
            with torch.no_grad(), self._autocast():
                for batch, truth in zip(images.split(size), targets.split(size), strict=True):
                    logits = network(to_input(batch, self.device))
                    losses.append(self.task.loss(logits, truth))
                    scores.update(logits, truth)
            row[f"{part}_loss"] = self._check_loss(PARTS[part], losses)
            row |= self.task.row(scores.compute(), part)
        return row

    def _autocast(self) -> contextlib.AbstractContextManager:
        return precision.autocast(self.options["precision"], self.device)

    def weights(self) -> dict[str, torch.Tensor]:
        """The reported weights: of the last epoch (averaged, if so configured) or the selected."""
        return self.best[1] if self.best else self._current_weights()

    def _current_weights(self) -> dict[str, torch.Tensor]:
        network = self.average or self.network
        return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def _summary(self, row: dict) -> str:
        """The last epoch in a few words."""
        text = f"loss {row['train_loss']:.3f}, {self.task.summary(row)}"
        if self.plan:
            text += f", epsilon {self.plan.epsilon(row['step']):.3g}"
        return text

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one of this very run."""
        state = checkpoint.load(self.state, self.fingerprint)
        if state is not None:
            checkpoint.restore(self, state)
            say(f"going on after epoch {len(self.history)} from {self.state / checkpoint.FILE}")
            if len(self.history) == self.options["epochs"]:
                say(f"nothing left to train; delete {self.state} to train anew")
