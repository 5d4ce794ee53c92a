"""One run of the training loop."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu import library
from cifarzoo.compute.place import compile_pays
from cifarzoo.compute.seeding import seeded
from cifarzoo.data import ImageSet, Loader
from cifarzoo.data.batches import check_batch
from cifarzoo.data.classes import class_names, class_numbers, describe_numbers
from cifarzoo.data.feed import Feed
from cifarzoo.errors import InputError, NonFiniteLossError
from cifarzoo.frozen import FrozenDict
from cifarzoo.recipe import Recipe
from cifarzoo.runs import Hold
from cifarzoo.training.best import Best
from cifarzoo.training.checkpoint import write_checkpoint
from cifarzoo.training.history import EpochRecord, History
from cifarzoo.training.interrupt import StopRequest
from cifarzoo.training.learner import Learner
from cifarzoo.training.loggers import Logger, RunStart, StepProgress
from cifarzoo.training.setup import Data, Setup
from cifarzoo.training.state import take_state
from cifarzoo.zoo.card import attach_card, get_card, names_of_outputs

__all__ = ["Loop"]

_log = logging.getLogger("cifarzoo")
_PREPARING = 5000  # images
_SETTLING = 10_000  # images: their statistics are as exact as those of all
_STEPS_WORTH_BUILDING = 200  # the C compiler takes some seconds, once on a machine
_TICK = 0.2  # seconds between two looks at the losses: progress costs nothing in between


class Loop:
    """One run of a Trainer: its epochs, what it measures, what it saves.

    Args:
        model: Trained in place; already on the device.
        recipe: How.
        setup: With what.
        data: On what.
        loggers: Told of what happens.
        checkpoint: Where the state is saved; None for nowhere.
        hold: The lock on the folder it lies in, where this process writes.
        stop: Whether somebody wants the run to end.
        keeps_best: Whether the network of the best epoch is handed over, not that of the last.
        checksums: Of its images, for the checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        setup: Setup,
        data: Data,
        *,
        loggers: tuple[Logger, ...],
        checkpoint: Path | None,
        hold: Hold | None,
        stop: StopRequest,
        keeps_best: bool = False,
        checksums: Mapping[str, str] = FrozenDict(),
    ) -> None:
        self.recipe, self.place, self.device = recipe, setup.place, setup.place.device
        self.checkpoint, self.hold, self.checksums = checkpoint, hold, checksums
        self.world, self.stop, self.has_own_loss = setup.world, stop, setup.loss is not None
        self.loggers = loggers if self.world.is_main else ()
        self.card = get_card(model)
        self.image_set = data.train if isinstance(data.train, ImageSet) else None
        self.names, self.val_names = class_names(data.train), class_names(data.val)
        surroundings: dict[str, Any] = {
            "preprocessing": self.card.preprocessing,
            "place": setup.place,
            "rank": self.world.rank,
            "world_size": self.world.size,
        }
        self.train = Feed.for_training(
            data.train,
            recipe,
            steps=data.steps_per_epoch,
            transform=data.transform,
            **surroundings,
        )
        self.val = Feed.for_validation(data.val, **surroundings) if data.val is not None else None
        all_steps = recipe.epochs * self.train.steps
        if setup.kernels and self.device.type == "cpu" and all_steps >= _STEPS_WORTH_BUILDING:
            library.build()
        wanted = setup.compile
        self.compiled = compile_pays(self.device, all_steps) if wanted == "auto" else wanted
        self.learner = Learner(
            model, recipe, setup, steps_per_epoch=self.train.steps, compiled=self.compiled
        )
        self.best = Best() if keeps_best else None
        self.records: list[EpochRecord] = []
        self.step = 0  # finished steps of the running epoch
        self.images = 0  # seen by this process in the running epoch
        self.seconds = 0.0  # spent on the running epoch before an interruption
        # summed loss and number of correct images of each step, read only now and then
        self.meter = torch.zeros(self.train.steps, 2, device=self.device)
        self.epoch_rng = torch.get_rng_state()
        self.resumed_rng: Tensor | None = None
        self.is_started = self.is_resumed = False
        self.told: list[Logger] = []  # of the start; the others learn of no end

    def finish(self) -> History:
        """Run the epochs that are left."""
        try:
            answers = [logger.is_over(self.history) for logger in self.loggers]
            is_over = self.is_resumed and self.world.any(any(answers), self.device)
            while not is_over and len(self.records) < self.recipe.epochs:
                record = self.train_epoch()
                self.records.append(record)
                self.step = self.images = 0
                self.seconds = 0.0
                self.save()
                answers = [logger.on_epoch(record) is True for logger in self.loggers]
                is_over = self.world.any(any(answers), self.device)
                stopping = self.world.any(self.stop.requested, self.device)
                if stopping and not is_over and len(self.records) < self.recipe.epochs:
                    self.leave()
            if is_over and len(self.records) < self.recipe.epochs:  # ended by a logger
                if self.val is None:
                    self.measure_averages()
                    self.save()  # the checkpoint holds what is handed over
                self.learner.look_back()
            self.learner.finish()
            if self.best is not None:
                self.best.hand_over(self.learner.model)
            return self.history
        finally:
            self.learner.release()
            for logger in self.told:
                try:
                    logger.on_end(self.history)
                except Exception:  # the result is worth more, and so is what ended the run
                    _log.exception("%s failed as the run ended", type(logger).__name__)

    @property
    def history(self) -> History:
        """The epochs so far."""
        return History(tuple(self.records))

    def train_epoch(self) -> EpochRecord:
        """All steps of an epoch, then the validation."""
        learner, meter = self.learner, self.meter
        learner.train()
        if self.resumed_rng is None:
            self.epoch_rng = torch.get_rng_state()
        batches = self.train.epoch(
            number=len(self.records), skip=self.step, resumed_rng=self.resumed_rng
        )
        self.resumed_rng = None
        began = last_look = time.perf_counter()
        for images, labels in batches:
            if not self.is_started:
                labels = self.start(images, labels)
            row = meter[self.step]
            learner.step(images, labels, loss_out=row[0], correct_out=row[1])
            self.step += 1
            self.images += len(labels)
            now = time.perf_counter()
            if now - last_look >= _TICK:
                last_look = now
                self.look(self.seconds + now - began)
            if self.stop.requested and self.world.size == 1 and self.step < self.train.steps:
                self.seconds += time.perf_counter() - began
                self.check_steps()
                self.save()
                self.leave()
        self.check_steps()
        totals = torch.cat((meter.sum(0), meter.new_tensor([self.images])))
        loss, correct, count = self.world.sum(totals).tolist()
        is_last = len(self.records) + 1 == self.recipe.epochs
        if is_last:
            learner.look_back()
        if self.val is not None or is_last:
            self.measure_averages()
        seconds = self.seconds + time.perf_counter() - began
        val_loss, val_accuracy = None, None
        if self.val is not None:
            val_loss, val_accuracy = learner.validate(self.val)
            if self.best is not None:
                self.best.see(learner.judged, len(self.records) + 1, val_accuracy)
        learner.end_epoch(loss / count if val_loss is None else val_loss)
        return EpochRecord(
            epoch=len(self.records) + 1,
            train_loss=loss / count,
            train_accuracy=correct / count,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=learner.learning_rate,
            seconds=seconds,
            images_per_second=count / seconds,
        )

    def measure_averages(self) -> None:
        """Let averaged weights be measured or handed over; what is trained later stays the same."""
        with seeded(self.recipe.seed, self.device):
            self.learner.settle(self.train.again(_SETTLING))

    def start(self, images: Tensor, labels: Tensor) -> Tensor:
        """Check the first batch, then tell the loggers; nothing is trained or written before.

        Returns:
            The labels, by the network's numbers.
        """
        check_batch(images, labels)
        num_classes = self.learner.probe(images)
        classes = self.match_classes(num_classes)
        labels = self.train.renumber(labels)
        self.learner.objective.match(images, classes, num_classes)
        for name, parameter in self.learner.model.named_parameters():
            if not parameter.isfinite().all():
                raise InputError(
                    f"parameter {name} is not finite before the first step; load other weights, "
                    "or build the model again"
                )
        if not self.is_resumed:
            self.learner.prepare(lambda: self.preparing_images(images))
        if (classes, num_classes) != (self.card.classes, self.card.num_classes):
            named = dataclasses.replace(self.card, num_classes=num_classes, classes=classes)
            attach_card(self.learner.model, named)
        run = RunStart(
            name=self.card.name,
            network=self.learner.model,
            recipe=self.recipe,
            steps_per_epoch=self.train.steps,
            epochs_done=len(self.records),
            history=self.history,
            device=self.device,
            precision=self.place.precision,
            compiled=self.compiled,
            images=images,
        )
        self.is_started = True
        for logger in self.loggers:
            logger.on_start(run)
            self.told.append(logger)
        return labels

    def match_classes(self, num_classes: int) -> tuple[str, ...] | None:
        """Let both feeds take labels by name; the names of the network's classes, once trained.

        Raises:
            InputError: The network knows some of the classes and not the others, or has more
                outputs than the images have classes; or a label has no output.
        """
        known, names = names_of_outputs(self.card.classes, num_classes), self.names
        if names is not None and len(names) < num_classes:
            raise InputError(
                f"the network has {num_classes} outputs and the images {len(names)} classes "
                f"({', '.join(names[:3])}{', ...' if names[3:] else ''}); build it with "
                f"num_classes={len(names)}, or give the images the names of all classes"
            )
        numbers = class_numbers(names, known)
        if names is None or numbers is not None:
            classes = known
        elif isinstance(self.train.source, Loader):  # its labels are the first of its names
            classes = names[:num_classes]
        else:  # a data set with more names than outputs may change its labels on the way
            classes = names_of_outputs(names, num_classes) or known
        self.train.match(num_classes, numbers)
        if numbers is not None and known is not None and self.has_own_loss and self.world.is_main:
            # its weights of classes must stand in this order
            _log.warning(
                "the loss sees the network's numbers: %s", describe_numbers(numbers, known)
            )
        if self.val is not None:
            numbers = class_numbers(self.val_names, classes, whose="the training images")
            self.val.match(num_classes, numbers)
        return classes

    def preparing_images(self, batch: Tensor) -> Tensor:
        """What a network may see beforehand: the first images of the set, or else the batch."""
        if self.image_set is None:
            return batch
        return self.card.preprocessing.normalize(self.image_set.images[:_PREPARING])

    def look(self, seconds: float) -> None:
        """Read the losses so far: report progress, and stop at one that is not finite."""
        if self.world.size == 1:
            self.check_steps()
        if not self.loggers:
            return
        loss, correct = self.meter[: self.step].sum(0).tolist()
        progress = StepProgress(
            epoch=len(self.records) + 1,
            step=self.step,
            loss=loss / self.images,
            accuracy=correct / self.images,
            learning_rate=self.learner.learning_rate,
            images_per_second=self.images * self.world.size / seconds,
        )
        for logger in self.loggers:
            logger.on_progress(progress)

    def check_steps(self) -> None:
        """Raise InputError at the first wrong batch, NonFiniteLossError at the first such loss."""
        self.train.check_late()
        bad = (~self.meter[: self.step, 0].isfinite()).nonzero()
        if not self.world.any(len(bad) > 0, self.device):
            return
        place = f"step {int(bad[0]) + 1}" if len(bad) else "a step of another process"
        raise NonFiniteLossError(
            f"the loss is not finite in epoch {len(self.records) + 1}, {place} of "
            f"{self.train.steps} (peak learning rate {self.recipe.learning_rate:.3g}); lower "
            f"learning_rate (try {self.recipe.learning_rate / 10:.2g}), set clip_norm=1, or warm "
            "up longer"
        )

    def save(self) -> None:
        """Write the checkpoint."""
        if self.checkpoint is None or self.hold is None:
            return
        self.hold.check()
        write_checkpoint(self.checkpoint, take_state(self))

    def leave(self) -> None:
        """Raise what ends the run, saying where it can go on."""
        if self.checkpoint is not None and self.hold is not None:
            where = f"continue with resume={str(self.checkpoint)!r}"
        elif self.world.is_main:
            where = "nothing was saved, for the Trainer has no output folder"
        else:
            where = "the first process says what was saved"
        raise self.stop.exception(
            f"stopped in epoch {len(self.records) + 1} after step {self.step}; {where}"
        )
