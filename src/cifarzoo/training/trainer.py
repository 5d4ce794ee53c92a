"""The Trainer: what a run needs, checked before it begins."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cifarzoo.compute.backend import arithmetic, many_shapes
from cifarzoo.compute.cpu import cpu_kernels, fast_layout, keep_freed_memory
from cifarzoo.compute.machine import describe_machine
from cifarzoo.compute.place import Device, Place, Precision
from cifarzoo.compute.seeding import seeded
from cifarzoo.compute.twin import evaluating
from cifarzoo.data import ImageSet
from cifarzoo.data.feed import Source
from cifarzoo.data.loader import Transform
from cifarzoo.errors import ArgumentError
from cifarzoo.files.paths import user_path
from cifarzoo.files.writing import make_directory
from cifarzoo.frozen import thaw
from cifarzoo.names import check_choice, one_line
from cifarzoo.recipe import Recipe
from cifarzoo.recipe.optimizers import OptimizerFactory
from cifarzoo.recipe.schedulers import SchedulerFactory
from cifarzoo.runs import Hold, RunFolder
from cifarzoo.training.checkpoint import choose_checkpoint
from cifarzoo.training.distillation import check_teacher
from cifarzoo.training.distributed import World, joined_world
from cifarzoo.training.history import History
from cifarzoo.training.interrupt import stop_on_interrupt
from cifarzoo.training.loggers import Logger
from cifarzoo.training.loop import Loop
from cifarzoo.training.objective import Loss, check_loss
from cifarzoo.training.provenance import checksums, describe_run
from cifarzoo.training.restoring import Saved, read_saved
from cifarzoo.training.setup import Data, Setup
from cifarzoo.training.state import restore
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import check_trainable, get_card, unwrap
from cifarzoo.zoo.facts import check_metadata

__all__ = ["Trainer"]

_at_work = threading.RLock()  # a run may begin another within itself, in its own thread


class Trainer:
    """Trains a model by a recipe.

    Under ``torchrun`` every process runs the same program. Each process takes its share of every
    batch, the gradients are averaged, and only the first process writes.

    Args:
        model: Any module from images (B, 3, H, W) to logits (B, classes). It is moved to the
            device and trained in place.
        recipe: Settings of the training; ``Recipe()`` unless given.
        optimizer: Name or factory of an optimizer, instead of the recipe's.
        scheduler: Name of a scheduler, or a factory
            ``(optimizer, epochs, steps_per_epoch) -> LRScheduler``, instead of the recipe's.
        device: "auto", or any torch device.
        precision: "auto" takes bfloat16 autocast where the device computes it natively.
        compile: Whether to compile the network with torch.compile, which takes up to a minute at
            first. "auto" does so on a GPU if the run is long enough to win this time back. On CPUs
            it was slower.
        loggers: Objects that hear of the run's start, progress, epochs and end.
        output: Folder of the run, as the command line writes and reads it: ``run.json`` and
            ``recipe.toml`` from the beginning, the checkpoint after every epoch, and at the end
            ``weights.safetensors`` and ``history.json``. Without it, nothing is written.
        loss: Function of float32 logits (B, C) and targets that returns a number, instead of
            cross-entropy, such as ``nn.CrossEntropyLoss(weight=...)``. Targets are int64 (B,), in
            the order of the network's outputs (``get_card(model).classes``); those of mixed images
            are shares of the classes, float (B, C). The validation loss uses it too, once over all
            images. What a module keeps in buffers is part of the checkpoint.
        transform: A further change of the training images of an ImageSet, after the recipe's own:
            any function from uint8 (B, 3, H, W) to the same, such as a torchvision v2 transform.
        keep: Which network the run ends with. "last" takes that of the last epoch. "best" takes
            that of the epoch with the best accuracy on the validation images, with averaged
            weights if the recipe averages. Never choose by test images.
        teacher: Trained network to learn from, which ``recipe.teacher`` names.
        kernels: Whether layers compute in the way that is fastest on a CPU; see `cpu_kernels`.
            Results are equal except for rounding. False leaves everything to torch.
        metadata: Further facts to keep with the run, as `save_weights` takes them.

    Raises:
        ArgumentError: The device, precision or recipe cannot be used.
        OutputError: ``output`` cannot be written.

    Example:
        >>> from cifarzoo import create_model, load_sample
        >>> trainer = Trainer(create_model("simple", seed=0), Recipe(epochs=1, batch_size=500))
        >>> history = trainer.fit(load_sample("train"))
        >>> len(history)
        1
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe | None = None,
        *,
        optimizer: str | OptimizerFactory | None = None,
        scheduler: str | SchedulerFactory | None = None,
        device: Device = "auto",
        precision: Precision = "auto",
        compile: bool | Literal["auto"] = False,  # noqa: A002  (everybody calls it so)
        loggers: Iterable[Logger] = (),
        output: str | Path | None = None,
        loss: Loss | None = None,
        transform: Transform | None = None,
        keep: Literal["last", "best"] = "last",
        teacher: nn.Module | None = None,
        kernels: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        recipe = Recipe() if recipe is None else recipe
        if not isinstance(recipe, Recipe):
            raise ArgumentError(f"recipe must be a Recipe; got {recipe!r}: Recipe.load() reads one")
        check_trainable(model)
        _check_options(model, recipe)
        check_teacher(model, teacher, recipe)
        # options belong to the optimizer or scheduler that the recipe wrote them for
        if isinstance(optimizer, str):
            recipe = recipe.replace(optimizer=optimizer, optimizer_options={})
        if isinstance(scheduler, str):
            recipe = recipe.replace(scheduler=scheduler, scheduler_options={})
        elif scheduler is not None:
            recipe = recipe.replace(scheduler_options={})
        self.model = model
        self.teacher = teacher
        self.kernels = kernels
        self.recipe = recipe
        self.place = Place.find(device, precision, model=model)
        check_loss(loss, recipe)
        self.loss, self.transform = loss, transform
        check_choice("keep", keep, ("last", "best"))
        self.keep: Literal["last", "best"] = keep
        if compile not in (True, False, "auto"):
            raise ArgumentError(f"compile must be True, False or 'auto'; got {compile!r}")
        self.compile: bool | Literal["auto"] = compile
        self.loggers = _as_loggers(loggers)
        self._makes_output = output is not None and not user_path(output).exists()
        # absolute: the program may go to another folder meanwhile
        self.output = make_directory(output).absolute() if output is not None else None
        self.metadata = check_metadata(metadata)
        self.optimizer: str | OptimizerFactory = optimizer or recipe.optimizer
        self.scheduler: str | SchedulerFactory = scheduler or recipe.scheduler

    def __repr__(self) -> str:
        name, recipe = one_line(get_card(self.model).name), self.recipe
        optimizer = self.optimizer if isinstance(self.optimizer, str) else "an optimizer of yours"
        precision = str(self.precision).removeprefix("torch.")
        return (
            f"Trainer({name!r}: {recipe.epochs} epochs, batches of {recipe.batch_size}, "
            f"{optimizer}, {precision} on {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Device that the model is trained on."""
        return self.place.device

    @property
    def precision(self) -> torch.dtype:
        """Dtype that the model computes in."""
        return self.place.precision

    @property
    def checkpoint(self) -> Path | None:
        """Path of the checkpoint; None without an output folder."""
        return RunFolder(self.output).checkpoint if self.output is not None else None

    def fit(
        self,
        train: Source,
        val: Source | None = None,
        *,
        resume: bool | str | Path = False,
        steps_per_epoch: int | None = None,
    ) -> History:
        """Train for the recipe's epochs. Afterwards the model is in the mode it was in before.

        Args:
            train: An ImageSet (augmented as the recipe says), a Loader, or any iterable of
                ``(images, labels)`` batches. Images of uint8 are normalized; float images are
                taken as normalized already. Every batch is checked.
            val: Images to measure after every epoch. Only the scheduler "plateau" and
                ``keep="best"`` act on the result.
            resume: True continues from the checkpoint in ``output``, and a path continues from
                that checkpoint. With the same data, the result is the same as without the
                interruption, except with ``steps_per_epoch`` and a source without ``state_dict``,
                which begins again at its start.
            steps_per_epoch: Number of optimizer steps in an epoch, for data without a length.

        Returns:
            A record for each epoch, also for those before a resumed checkpoint.

        Raises:
            ArgumentError: A Trainer is at work in another thread.
            InputError: The data is not as described.
            CheckpointError: The checkpoint is damaged or belongs to another run; or ``output``
                holds a run already and ``resume`` is off; or a run is at work there.
            OutputError: The disk is full, or ``output`` was deleted or replaced meanwhile.
            NonFiniteLossError: The loss became NaN or infinite; the last checkpoint is kept.
            PeerError: Under ``torchrun``, another process has ended or does not answer.
            KeyboardInterrupt: Ctrl-C was pressed, or SIGTERM or SIGHUP came. The step was finished
                and the state saved; or the run was complete, and all of it was written. After
                SIGTERM or SIGHUP, a program that does not catch it ends with status 143 or 129.
        """
        self._check_keep(val)
        with (
            torch.inference_mode(False),  # wherever it is called
            torch.enable_grad(),
            torch.autocast(self.device.type, enabled=False),
            _only_run(),
            joined_world(self.device) as world,
            self._locked(is_main=world.is_main) as hold,
        ):
            found = choose_checkpoint(resume, self.output)
            saved = read_saved(found, describe(self.model), self.recipe) if found else None
            return self._fit(world, hold, Data(train, val, steps_per_epoch, self.transform), saved)

    def _fit(self, world: World, hold: Hold | None, data: Data, saved: Saved | None) -> History:
        size = data.train.images.shape[-1] if isinstance(data.train, ImageSet) else None
        with (
            self._fast(size),
            self._teaching(size) as teacher,
            arithmetic(self.place),
            many_shapes(len(self.recipe.image_sizes)) if self.compile else contextlib.nullcontext(),
            stop_on_interrupt(patience=world.patience) as stop,
            # dropout and mixing draw from torch's global generators: they are ours for the run only
            seeded(self.recipe.seed + world.rank, self.device),
            self._kept(data, saved, hold) as (found, keep_result),
        ):
            setup = Setup(
                place=self.place,
                world=world,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                loss=self.loss,
                teacher=teacher,
                compile=self.compile,
                kernels=self.kernels,
            )
            loop = Loop(
                self.model,
                self.recipe,
                setup,
                data,
                loggers=self.loggers,
                checkpoint=self.checkpoint,
                hold=hold,
                stop=stop,
                keeps_best=self.keep == "best",
                checksums=found,
            )
            if saved is not None:
                restore(loop, saved)
            history = loop.finish()
            keep_result(history, loop.best.epoch if loop.best is not None else None)
            if stop.requested:  # too late for this run; what the program does next is not wanted
                raise stop.exception("the run is complete")
            return history

    def _check_keep(self, val: Source | None) -> None:
        if self.keep == "last":
            return
        if val is None:
            raise ArgumentError(
                "keep='best' needs validation images; pass them to fit(train, val), as in "
                "train, val = train.split(5000)"
            )
        if isinstance(val, ImageSet) and val.name.endswith(" test"):
            raise ArgumentError(
                f"keep='best' would choose by {val.name!r}, and test images decide nothing; hold "
                "out training images: train, val = train.split(5000)"
            )

    @contextlib.contextmanager
    def _locked(self, *, is_main: bool) -> Iterator[Hold | None]:
        """The output folder for the block, for no other run; None where nothing is written."""
        if self.output is None or not is_main:
            yield None
            return
        run = RunFolder(self.output)
        try:
            with run.locked() as hold:
                yield hold
        finally:
            if self._makes_output:
                run.remove_if_empty()

    @contextlib.contextmanager
    def _kept(
        self, data: Data, saved: Saved | None, hold: Hold | None
    ) -> Iterator[tuple[dict[str, str], Callable[[History, int | None], object]]]:
        """Claim the output folder for the block.

        Yields:
            Checksums of the images, where a checkpoint has or will have them; and what writes the
            result.
        """
        if hold is None:
            yield checksums(data, {}) if saved is not None else {}, lambda history, epoch: None
            return
        run = RunFolder(hold.path)
        found = checksums(data, self.metadata)
        facts = describe_run(self, data, found)
        alone = (facts["resuming"] or {}).get("only_in_python")  # the command line has nothing else
        with run.claimed(facts, self.recipe, hold, resumed=saved is not None) as noted:

            def write(history: History, epoch: int | None) -> None:
                hold.check()
                if saved and len(saved["records"]) == len(history) and run.weights.exists():
                    return  # it was finished, and somebody may have added to them
                now = {
                    "recipe": self.recipe.to_dict(),
                    "precision": facts["precision"],
                    "machine": describe_machine(self.device),
                    **({} if epoch is None else {"kept_epoch": epoch}),
                    **({"not_by_recipe": alone} if alone else {}),
                }
                run.keep(self.model, {**noted, **now}, history.to_list())

            yield found, write

    @contextlib.contextmanager
    def _fast(self, image_size: int | None) -> Iterator[None]:
        """The model on its device, in the layers and the layout that are fast there."""
        self.model.to(self.device)
        inner, on = unwrap(self.model), self.kernels
        with (
            keep_freed_memory(self.device, enabled=on),
            cpu_kernels(inner, enabled=on),
            fast_layout(inner, image_size, enabled=on),
        ):
            yield

    @contextlib.contextmanager
    def _teaching(self, image_size: int | None) -> Iterator[nn.Module | None]:
        """A twin of the teacher, for the teacher itself is not ours."""
        if self.teacher is None:
            yield None
            return
        with (
            evaluating(self.teacher, self.device) as twin,
            cpu_kernels(twin, enabled=self.kernels),
            fast_layout(twin, image_size, enabled=self.kernels),
        ):
            yield twin


@contextlib.contextmanager
def _only_run() -> Iterator[None]:
    """Raise ArgumentError while another thread trains: the global generators are one for all."""
    if not _at_work.acquire(blocking=False):
        raise ArgumentError(
            "a Trainer is at work in another thread, and both would draw from torch's global "
            "generators, so that neither run could be repeated; train one after the other, or in "
            "processes of their own"
        )
    try:
        yield
    finally:
        _at_work.release()


def _as_loggers(loggers: Any) -> tuple[Logger, ...]:
    """``loggers`` as a tuple; raises ArgumentError when one is something else."""
    found = tuple(loggers) if isinstance(loggers, Iterable) else (loggers,)
    for each in found:
        if not isinstance(each, Logger):
            raise ArgumentError(f"loggers must be Logger objects, as ConsoleLogger(); got {each!r}")
    return found


def _check_options(model: nn.Module, recipe: Recipe) -> None:
    """Raise ArgumentError when the model was built otherwise than the recipe wants it."""
    built = get_card(model).options
    for name, value in recipe.model_options.items():
        found = built.get(name)
        if (list(found) if isinstance(found, tuple) else found) != value:
            raise ArgumentError(
                f"the recipe is made for {name}={thaw(value)!r}; build the model with "
                "create_model(name, **recipe.model_options), or train this one with "
                "recipe.replace(model_options={})"
            )
