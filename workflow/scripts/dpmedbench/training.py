"""One training loop for every mechanism.

It draws batches as the cell's plan says, hands per-sample losses to the cell's engine, validates
each epoch, and goes on from a checkpoint where it was killed.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import numpy as np
import torch

from dpmedbench import checkpoint, cost, models, tasks
from dpmedbench.console import Progress, say
from dpmedbench.errors import UserError
from dpmedbench.inputs import to_input
from dpmedbench.mechanisms.none import OrdinaryTraining
from dpmedbench.mechanisms.private import PrivateTraining, build
from dpmedbench.optimization import choose_device, make_optimizer, make_scheduler, stream_seed
from dpmedbench.planning import check_images, plan_for, randomness
from dpmedbench.privacy.contract import ContractMonitor
from dpmedbench.privacy.sampling import ShuffledSampler
from dpmedbench.training_data import Data

VALIDATION_BATCH = 16


class Cell:
    """One cell while it trains.

    After `run`: `history` (a dict an epoch), `weights()`, `observed` (what the monitor saw),
    `timer` and `first_step_seconds`.

    Args:
        settings: as made by `cells.settings`.
        data: the fold's records.
        state: folder of the checkpoint.
        code: digest of the code, part of the checkpoint's fingerprint.
    """

    def __init__(self, settings: dict, data: Data, state: Path, code: str = ""):
        self.settings, self.data, self.state, self.code = settings, data, state, code
        self.options = options = settings["training"]
        self.started = time.monotonic()
        self.device = choose_device(options["device"])
        self.seed = settings["identity"]["seed"]
        self.task = tasks.load(data.task)(data.num_classes, **settings["task"])
        torch.manual_seed(stream_seed(self.seed, "weights"))
        network = dict(settings["model"])
        self.network = models.build(
            network.pop("network"), data.channels, data.num_classes, **network
        ).to(self.device)
        self.average = (
            torch.optim.swa_utils.AveragedModel(
                self.network,
                multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(options["ema_decay"]),
            )
            if options["ema_decay"]
            else None
        )
        self.optimizer = make_optimizer(self.network, options)
        check_images(settings, data.perturbation)
        self.plan = plan_for(settings, self.network, len(data.train[0]))
        self.monitor = self._monitor()
        records = len(data.train[0])
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
        self.timer = cost.StepTimer(self.device)
        self.history: list[dict] = []
        self.best: tuple[float, dict] | None = None
        self.first_step_seconds: float | None = None
        self.fingerprint = checkpoint.fingerprint(
            settings=settings,
            data=data.digest,
            code=code,
            torch=torch.__version__,
            device=self.device.type,
        )

    def run(self) -> None:
        """Train to the last epoch and check that the privacy plan was kept.

        Raises:
            UserError: where another job trains the cell, the loss is not finite, or (as
                ContractBroken) the privacy plan was not kept.
        """
        identity = self.settings["identity"]
        title = " ".join(str(identity[key]) for key in ("dataset", "model", "mechanism", "privacy"))
        epochs = self.options["epochs"]
        with checkpoint.locked(self.state):
            self._resume()
            self._upload()
            with Progress(title, epochs, len(self.history)) as progress:
                for epoch in range(len(self.history) + 1, epochs + 1):
                    self.history.append(self._epoch(epoch))
                    if epoch % self.options["checkpoint_every"] == 0 or epoch == epochs:
                        checkpoint.save(self.state, self.fingerprint, self._state())
                    progress.update(epoch, self._summary(self.history[-1]))
            self.observed = self.monitor.finish() if self.monitor else None

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

    def _monitor(self) -> ContractMonitor | None:
        if not self.plan:
            return None
        return ContractMonitor(
            self.plan, self.network, len(self.data.train[0]), every=self.plan.steps_per_epoch
        )

    def _upload(self) -> None:
        """Keep the decoded records on the device: no loader, no copies during training."""
        (self.images, self.targets), *scored = (
            [torch.as_tensor(array).to(self.device) for array in getattr(self.data, part)]
            for part in ("train", *self.data.scored)
        )
        self.scored = dict(zip(self.data.scored, scored, strict=True))
        self.constant = {}
        for part, (_, targets) in self.scored.items():
            self.constant |= self.task.constant_row(self.data.train[1], targets, part)

    def _epoch(self, epoch: int) -> dict:
        """Train and validate one epoch; its row of the history."""
        started = time.perf_counter()
        losses, samples, empty = [], 0, 0
        self.seen = self.task.scores() if self.task.FOLLOWS_TRAINING else None
        self.engine.model.train()
        for indices in self.sampler.epoch(self.steps_per_epoch):
            if self.monitor:
                self.monitor.drew(self.sampler, indices)
            self.timer.start()
            losses += self._step(indices)
            self.timer.stop()
            if self.first_step_seconds is None:
                self.first_step_seconds = time.monotonic() - self.started
            samples += len(indices)
            empty += len(indices) == 0
        self.timer.end_epoch()
        train_loss = torch.cat(losses).double().mean().item() if losses else math.nan
        self.peak_memory = cost.peak_memory(self.device)  # before validation and accounting
        trained = time.perf_counter()
        if not math.isfinite(train_loss) and samples:
            raise UserError(
                f"epoch {epoch}: the training loss is {train_loss}; lower the learning rate "
                f"(now {self.options['learning_rate']:g}) or use precision float32"
            )
        validation = self._validate()
        ended = time.perf_counter()
        if self.options["selection"] == "best_validation" and (
            self.best is None or validation[self.task.SELECTED_BY] > self.best[0]
        ):
            self.best = (validation[self.task.SELECTED_BY], self._current_weights())
        elapsed = self.history[-1]["elapsed_seconds"] if self.history else 0.0
        return {
            "epoch": epoch,
            "step": epoch * self.steps_per_epoch,
            "samples": samples,
            "empty_batches": empty,
            "seconds": trained - started,
            "validation_seconds": ended - trained,
            "elapsed_seconds": elapsed + ended - started,
            "train_loss": train_loss,
            **(self.task.row(self.seen.compute(), "train") if self.seen else {}),
            **validation,
            **self.constant,
            **self._gradient_row(),
            "learning_rate": self.scheduler.get_last_lr()[0],
        }

    def _step(self, indices: torch.Tensor) -> list[torch.Tensor]:
        """One logical batch in physical ones, then one update; the detached losses."""
        indices = indices.to(self.device)
        parts = indices.split(self.options["physical_batch_size"]) if len(indices) else ()
        losses = []
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
        if self.average:
            self.average.update_parameters(self.network)
        return losses

    def _validate(self) -> dict:
        """Loss and scores on what is not trained on, of the weights that would be reported now."""
        network = self.average.module if self.average else self.network
        network.eval()
        row = {}
        for part, (images, targets) in self.scored.items():
            scores, total = self.task.scores(), 0.0
            with torch.no_grad(), self._autocast():
                for batch, truth in zip(
                    images.split(VALIDATION_BATCH), targets.split(VALIDATION_BATCH), strict=True
                ):
                    logits = network(to_input(batch, self.device))
                    total = total + self.task.loss(logits, truth).double().sum()
                    scores.update(logits, truth)
            row[f"{part}_loss"] = float(total) / len(images)
            row |= self.task.row(scores.compute(), part)
        return row

    def _gradient_row(self) -> dict:
        """Quantiles of the per-sample gradient norms, and the share that was clipped."""
        found = self.engine.gradient_norms()
        keys = ("grad_norm_p10", "grad_norm_p50", "grad_norm_p90", "clipped_fraction")
        if found is None:
            return dict.fromkeys(keys, math.nan)
        norms, clipped = found
        quantiles = np.quantile(norms.cpu().numpy(), [0.1, 0.5, 0.9]).tolist()
        return dict(zip(keys, [*quantiles, clipped.float().mean().item()], strict=True))

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.options["precision"] == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def weights(self) -> dict[str, torch.Tensor]:
        """The reported weights: of the last epoch (averaged, if so configured) or the selected."""
        return self.best[1] if self.best else self._current_weights()

    def _current_weights(self) -> dict[str, torch.Tensor]:
        network = self.average.module if self.average else self.network
        return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def _summary(self, row: dict) -> str:
        """The last epoch in a few words."""
        text = f"loss {row['train_loss']:.3f}, {self.task.summary(row)}"
        if self.plan:
            text += f", epsilon {self.plan.epsilon(row['step']):.3g}"
        return text

    def _state(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "engine": self.engine.state(),
            "sampler": self.sampler.randomness.state(),
            "monitor": self.monitor.state() if self.monitor else None,
            "random": torch.get_rng_state(),
            "history": self.history,
            "step_seconds": self.timer.seconds,
            "peak_memory": self.peak_memory,
            "first_step_seconds": self.first_step_seconds,
            "best": self.best,
        }

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one of this very run."""
        state = checkpoint.load(self.state, self.fingerprint)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.monitor:
            self.monitor.restore(state["monitor"])
        self.engine.restore(state["engine"])
        self.sampler.randomness.restore(state["sampler"])
        torch.set_rng_state(state["random"])
        self.history = state["history"]
        self.timer.seconds = state["step_seconds"]
        self.peak_memory = state["peak_memory"]
        self.first_step_seconds = state["first_step_seconds"]
        self.best = state["best"]
        say(f"going on after epoch {len(self.history)} from {self.state / checkpoint.FILE}")
