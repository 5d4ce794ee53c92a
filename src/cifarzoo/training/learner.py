"""What learns: the network with its optimizer, schedule and average, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifarzoo.compute.cpu import cpu_kernels
from cifarzoo.compute.modes import Modes
from cifarzoo.compute.twin import evaluating
from cifarzoo.compute.unchanged import unchanged
from cifarzoo.data.augment import downsample
from cifarzoo.data.batches import check_logits
from cifarzoo.data.feed import Feed
from cifarzoo.errors import CheckpointError, InputError
from cifarzoo.recipe import Recipe
from cifarzoo.recipe.optimizers import build_optimizer
from cifarzoo.recipe.schedulers import build_scheduler
from cifarzoo.training.averages import Lookahead, build_ema, keep_extra_state
from cifarzoo.training.mixing import Mixer, build_mixer
from cifarzoo.training.normalization import frozen_normalizations, measure_normalizations
from cifarzoo.training.objective import Objective
from cifarzoo.training.restoring import (
    LearnerState,
    expected_state,
    is_stock,
    take_like,
    take_optimizer,
)
from cifarzoo.training.setup import Setup
from cifarzoo.training.validation import validate
from cifarzoo.zoo.card import unwrap

__all__ = ["Learner"]


class Learner:
    """A network and everything that changes it.

    Args:
        model: Trained in place; already on the device.
        recipe: How.
        setup: With what.
        steps_per_epoch: Optimizer steps in an epoch.
        compiled: Let torch.compile fuse the network.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        setup: Setup,
        *,
        steps_per_epoch: int,
        compiled: bool = False,
    ) -> None:
        self.model = model
        self._still = frozen_normalizations(unwrap(model))
        self._modes = Modes(model.modules())
        self._gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        self.recipe = recipe
        self._kernels = setup.kernels
        self.place, self.device = setup.place, setup.place.device
        self._world = setup.world
        self._network = self._world.wrap(model, self.device)
        # a graph on a GPU keeps what it returns in memory of its own, which each step uses again
        self._replays = compiled and self.device.type == "cuda"
        if compiled:
            # on a GPU small networks are bound by launching kernels: replay them as one graph
            mode = "reduce-overhead" if self._replays else "default"
            self._network = torch.compile(self._network, mode=mode, dynamic=False)  # type: ignore[assignment]  # a module stays one
        self.optimizer = build_optimizer(
            setup.optimizer,
            unwrap(model),  # which alone can declare groups
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            groups=recipe.groups,
            options=recipe.optimizer_options,
        )
        self.scheduler = build_scheduler(
            setup.scheduler,
            self.optimizer,
            epochs=recipe.epochs,
            steps_per_epoch=steps_per_epoch,
            options=recipe.scheduler_options,
        )
        self._steps_by_metric = isinstance(self.scheduler, ReduceLROnPlateau)
        self._start_averages()
        limited = [group for group in self.optimizer.param_groups if "freeze_at" in group]
        self._to_freeze = sorted(limited, key=lambda group: float(group["freeze_at"]))
        self._frozen: list[nn.Parameter] = []
        self._mix: Mixer | None = None
        self.objective = Objective(recipe, setup.loss, setup.teacher, setup.place)
        # float16 loses small gradients: the loss is made large before them, and they small again
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=setup.place.precision == torch.float16
        )
        self._steps = 0
        self._all_steps = recipe.epochs * steps_per_epoch
        self.learning_rate = recipe.learning_rate

    def prepare(self, choose_images: Callable[[], Tensor]) -> None:
        """Let a network that sets itself up by training images see them, before the first step.

        One that says it ``is_prepared``, by earlier training or loaded weights, is left alone.

        Args:
            choose_images: Returns (B, 3, H, W), normalized; called only if they are wanted.
        """
        network = unwrap(self.model)
        prepare = getattr(network, "prepare", None)
        if prepare is None or getattr(network, "is_prepared", False):
            return
        prepare(choose_images().to(self.device))
        self._world.share(self.model)
        self._start_averages()

    @torch.no_grad()
    def probe(self, images: Tensor) -> int:
        """Number of classes, by a pass of the first image at every size; nothing is changed.

        Raises:
            InputError: The network cannot take a size that the recipe trains at.
        """
        with unchanged(self.model), evaluating(self.model) as network, self.place.autocast():
            logits = network(images[:1])
            check_logits(logits, 1)
            num_classes = int(logits.shape[1])
            for _, size in self.recipe.image_sizes:
                try:
                    network(downsample(images[:1], int(size)))
                except (InputError, RuntimeError) as error:
                    raise InputError(
                        f"image_sizes trains at {size:g} pixels, which this network cannot: {error}"
                    ) from error
        self.train()
        self._mix = build_mixer(self.recipe, num_classes)
        return num_classes

    def step(
        self, images: Tensor, labels: Tensor, *, loss_out: Tensor, correct_out: Tensor
    ) -> None:
        """Forward, backward, update.

        Args:
            images: (B, 3, H, W), normalized, in the precision of the run.
            labels: int64 (B,), or shares of the classes, float (B, C).
            loss_out: Scalar tensor that receives the loss summed over the batch.
            correct_out: Scalar tensor that receives the number of correct images; of mixed ones,
                those given the label of the larger share.
        """
        self._freeze()
        targets = labels
        size = self.recipe.image_size_at(self._steps / self._all_steps)
        if size is not None:
            images = downsample(images, size)
        if self._mix is not None:
            images, targets = self._mix(images, labels)
        truth = targets if targets.ndim == 1 else targets.argmax(1)
        self.optimizer.zero_grad(set_to_none=True)
        if self._replays:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        loss, logits = self._pass(images, targets)
        for parameter in self._frozen:
            parameter.grad = None
        self._scaler.unscale_(self.optimizer)
        if self.recipe.clip_norm > 0:
            groups = self.optimizer.param_groups  # others keep gradients of whoever made them
            learning = [parameter for group in groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(learning, self.recipe.clip_norm)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._steps += 1
        if not self._steps_by_metric:
            self.scheduler.step()
        if self._lookahead is not None:
            self._lookahead.update(self._steps, self._steps / self._all_steps)
        if self._ema is not None:
            self._ema.update(unwrap(self.model), step=self._steps)
        torch.mul(loss, len(labels), out=loss_out)
        correct_out.copy_((logits.argmax(1) == truth).sum())

    def _pass(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward, in as many parts as the recipe says: mean loss, logits (B, C)."""
        parts = [*zip(*(x.chunk(self.recipe.accumulate) for x in (images, targets)), strict=True)]
        losses, logits = [], []
        for number, (seen, wanted) in enumerate(parts, 1):
            with self._world.alone(self._network, number < len(parts)):
                with self.place.autocast():
                    output = self._network(seen)
                check_logits(output, len(seen))
                output = output.float()
                loss = self.objective(output, wanted, seen)
                if len(parts) > 1:
                    loss = loss * (len(seen) / len(images))
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            logits.append(output.detach())
        if len(parts) == 1:
            return losses[0], logits[0]
        return torch.stack(losses).sum(), torch.cat(logits)

    def _start_averages(self) -> None:
        decay = self.recipe.lookahead_decay
        self._ema: Any = build_ema(self.model, self.recipe)
        self._lookahead = Lookahead(self.model, decay) if decay else None

    def _freeze(self) -> None:
        """Leave groups alone whose time is over."""
        progress = self._steps / self._all_steps
        while self._to_freeze and progress >= self._to_freeze[0]["freeze_at"]:
            for parameter in self._to_freeze.pop(0)["params"]:
                self._frozen.append(parameter)
                # several processes exchange the same gradients to the end
                parameter.requires_grad_(self._world.size > 1)
            if self._lookahead is not None:
                self._lookahead.hold(self._frozen)

    def end_epoch(self, loss: float) -> None:
        """Let a schedule that goes by the loss see it."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(loss)

    def settle(self, images: Iterator[Tensor]) -> None:
        """Let the averaged weights be measured, if there are any; see `measure_normalizations`.

        Args:
            images: Normalized batches (B, 3, H, W); without any, the statistics stay averages.
        """
        if self._ema is None:
            return
        network = self._ema.module
        keep_extra_state(network, unwrap(self.model))
        with cpu_kernels(network, enabled=self._kernels), self.place.autocast():
            measure_normalizations(network, images, still=self._still)

    @property
    def judged(self) -> nn.Module:
        """The network that is measured and handed over: the averaged one, if there is one."""
        return unwrap(self.model) if self._ema is None else self._ema.module

    def validate(self, feed: Feed) -> tuple[float, float]:
        """Mean loss and accuracy on ``feed``, over all processes, of the network that is judged."""
        self._world.share(self.judged)  # running statistics are of each process's own batches
        return validate(
            self.judged,
            feed,
            self.objective,
            place=self.place,
            world=self._world,
            kernels=self._kernels,
        )

    def look_back(self) -> None:
        """Set the model to the slow weights of lookahead, if there are any, at the end of a run."""
        if self._lookahead is not None:
            self._lookahead.take()

    def finish(self) -> None:
        """Give the model the averaged weights, if there are any; the same in every process."""
        if self._ema is not None:
            unwrap(self.model).load_state_dict(self._ema.module.state_dict())
        self._world.share(self.model)

    def release(self) -> None:
        """Hand the model back as it came: its mode, what is trainable, no new gradients."""
        self._modes.restore()
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient

    def train(self) -> None:
        """Switch to training mode, but for normalizations whose parameters are all frozen."""
        self._network.train()
        for name in self._still:
            unwrap(self.model).get_submodule(name).eval()

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as tensors and plain data."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": self._ema.module.state_dict() if self._ema is not None else None,
            "lookahead": self._lookahead.slow if self._lookahead is not None else None,
            "scaler": self._scaler.state_dict(),
            "loss": self.objective.state_dict(),
            "untouched": self._untouched(self.optimizer.state_dict()["state"]),
            "steps": self._steps,
            "learning_rate": self.learning_rate,
        }

    def take(self, state: LearnerState) -> LearnerState:
        """What `load_state_dict` takes of a checkpoint, compared with what is there.

        Raises:
            CheckpointError: A part of it does not fit; nothing is changed.
        """
        own = self.state_dict()
        untouched = state.get("untouched")
        if untouched not in (None, self._untouched(state["optimizer"].get("state", ()))):
            raise CheckpointError("learner.optimizer.state lacks a parameter")
        self._expected = expected_state(self.optimizer)
        taken: Any = {
            name: take_like(state.get(name), own[name], f"learner.{name}")
            for name in ("model", "ema", "lookahead", "scaler")
            if own[name]
        }
        self.objective.check(state.get("loss"))
        optimizer = take_optimizer(
            state["optimizer"],
            self.optimizer,
            self._expected,
            steps=state["steps"],
        )
        scheduler = state["scheduler"]
        if is_stock(self.scheduler):
            scheduler = take_like(scheduler, own["scheduler"], "learner.scheduler", lenient=True)
        return {**state, **taken, "optimizer": optimizer, "scheduler": scheduler}

    def _untouched(self, state: Collection[Any]) -> list[int]:
        """Numbers of the parameters for which an optimizer keeps nothing."""
        count = sum(len(group["params"]) for group in self.optimizer.param_groups)
        return [number for number in range(count) if number not in state]

    def load_state_dict(self, state: LearnerState) -> None:
        """Go back to what `take` has found fit; the model is changed last."""
        self.optimizer.load_state_dict(state["optimizer"])
        # in the types and layout that a step expects: torch's fused kernels do not look
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            kept = self.optimizer.state.get(parameter, {})
            for key, value in state["optimizer"]["state"].get(number, {}).items():
                like = self._expected[number].get(key, parameter)
                both = isinstance(value, Tensor) and isinstance(like, Tensor)
                if both and value.shape == like.shape:
                    kept[key] = torch.empty_like(like, requires_grad=False).copy_(value)
        self.scheduler.load_state_dict(state["scheduler"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"] or {})
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        if self._lookahead is not None:
            for slow, saved in zip(self._lookahead.slow, state["lookahead"] or (), strict=True):
                slow.copy_(saved)
        self.objective.load_state_dict(state.get("loss"))
        own = self.model.state_dict()  # which knows its version
        own.update(state["model"])
        self.model.load_state_dict(own)
        self._steps = state["steps"]
        self.learning_rate = state["learning_rate"]
