from __future__ import annotations

import contextlib
import copy
import functools
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel

import cifarzoo
from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import InputError
from cifarzoo.zoo.card import unwrap


def block() -> nn.Sequential:
    """What answers otherwise in training mode, and moves statistics."""
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))


def in_list() -> nn.Module:
    """Registered modules, called through a plain list."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = block(), block()
            self.order = [self.first, self.second]

        def forward(self, x: Tensor) -> Tensor:
            for each in self.order:
                x = each(x)
            return x

    return Net()


class Holder(nn.Module):
    """Calls what a container of its own holds, unknown to torch."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.held, dict):
            return self.held["block"](x)
        if isinstance(self.held, list | tuple):
            return self.held[0](x)
        return self.held(x)


def closure() -> nn.Module:
    """A function that has a module in its closure."""
    inner = block()
    net = Holder(None)
    net.inner = inner
    net.held = lambda x: inner(x)
    return net


def rewired() -> nn.Module:
    """A forward method given to one object."""
    net = nn.Sequential(block(), block())
    net.forward = types.MethodType(lambda self, x: self[1](self[0](x)) + 1, net)  # type: ignore[method-assign]
    return net


def tied() -> nn.Module:
    one = block()
    net = nn.Sequential(one, nn.Conv2d(3, 3, 1), one)
    net[1].weight = one[0].weight
    return net


def parent_in_weakref() -> nn.Module:
    class Child(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.parent()[0](x)

    net = nn.Sequential(block(), Child())
    net[1].parent = weakref.ref(net)
    return net


def hooked() -> nn.Module:
    net = nn.Sequential(block(), block())
    extra = block()
    net.extra = extra
    net.forward = lambda x: net[1](net[0](x))  # type: ignore[method-assign]
    net[0].register_forward_hook(lambda module, args, output: extra(output))
    net[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return net


def parametrized() -> nn.Module:
    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, weight: Tensor) -> Tensor:
            return self.norm(weight)

    net = block()
    parametrize.register_parametrization(net[0], "weight", Double())
    return nn.Sequential(net, parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), block())


def spectral() -> nn.Module:
    return nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)), block())


def traced_graph() -> nn.Module:
    return torch.fx.symbolic_trace(nn.Sequential(block(), block()))


def compiled() -> nn.Module:
    return torch.compile(nn.Sequential(block()), backend="eager")  # type: ignore[return-value]


def compiled_in_place() -> nn.Module:
    net = nn.Sequential(block())
    net[0].compile(backend="eager")
    return net


def compiled_part() -> nn.Module:
    return nn.Sequential(block(), torch.compile(block(), backend="eager"))  # type: ignore[arg-type]


def compiled_method() -> nn.Module:
    net = Holder(None)
    net.block = block()
    net.held = torch.compile(net.block.forward, backend="eager")
    return net


def data_parallel() -> nn.Module:
    return nn.DataParallel(block())


class Mirroring(nn.DataParallel):
    """Computes more than the network inside."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        return out.flip(3)


def with_hooks(wrapper: nn.Module) -> nn.Module:
    wrapper.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    wrapper.register_forward_hook(lambda _, inputs, output: output + inputs[0])
    return wrapper


def patched(wrapper: nn.Module) -> nn.Module:
    forward = wrapper.forward
    wrapper.forward = lambda x: forward(x).flip(3)
    return wrapper


def scripted() -> nn.Module:
    with pytest.warns():  # deprecated, and still in use
        return torch.jit.script(block())  # type: ignore[no-any-return]


def with_scripted_part() -> nn.Module:
    return nn.Sequential(block(), scripted())


class _Both:
    """Holds a module and is none."""

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


def in_object() -> nn.Module:
    net = Holder(None)
    net.inner = block()
    net.held = _Both(net.inner)
    return net


class OwnTrain(nn.Module):
    """Its mode is more than a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.block = block()
        self.is_deployed = False

    def train(self, mode: bool = True) -> OwnTrain:
        self.is_deployed = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out if self.is_deployed else out + 1


def class_closure() -> nn.Module:
    inner = block()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = inner(x)
            return out

    return Net()


SHARED = block()
FORWARD = SHARED.forward
TABLE = {"forward": functools.partial(SHARED)}
networks = types.ModuleType("networks")
networks.SHARED = SHARED  # type: ignore[attr-defined]


def by_table(x: Tensor) -> Tensor:
    return max(TABLE["forward"](each) for each in (x,))


USES = {
    "global variable": lambda x: SHARED(x),
    "global method": lambda x: FORWARD(x),
    "global function": lambda x: by_table(x),
    "module's variable": lambda x: networks.SHARED(x),
}


def global_variable(use: Callable[[Tensor], Tensor]) -> nn.Module:
    net = Holder(use)
    net.inner = SHARED
    return net


def class_attribute() -> nn.Module:
    class Net(Holder):
        inner = block()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out

    net = Net(None)
    net.registered = net.inner
    return net


def slotted() -> nn.Module:
    class Net(nn.Module):
        __slots__ = ("inner",)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.block(x)
            return out

    net = Net()
    net.block = block()
    return net


TWINS: dict[str, Callable[[], nn.Module]] = {
    "in list": in_list,
    "in hidden list": lambda: Holder([block()]),
    "in hidden tuple": lambda: Holder((block(),)),
    "in hidden dict": lambda: Holder(OrderedDict(block=block())),
    "in partial": lambda: Holder(functools.partial(F.relu)),
    "bound method": lambda: Holder(block().forward),
    "partial of a module": lambda: Holder(functools.partial(block())),
    "closure": closure,
    "rewired": rewired,
    "tied": tied,
    "parent in weakref": parent_in_weakref,
    "hooked": hooked,
    "parametrized": parametrized,
    "spectral": spectral,
    "graph module": traced_graph,
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "compiled part": compiled_part,
    "compiled method": compiled_method,
    "data parallel": data_parallel,
    "data parallel part": lambda: nn.Sequential(data_parallel(), block()),
    "data parallel with hooks": lambda: with_hooks(data_parallel()),
    "data parallel of one's own": lambda: Mirroring(block()),
    "data parallel, patched": lambda: patched(data_parallel()),
    "compiled with hooks": lambda: with_hooks(compiled()),
    "compiled, patched": lambda: patched(compiled()),
    "averaged with hooks": lambda: with_hooks(AveragedModel(block())),
    "scripted": scripted,
    "scripted part": with_scripted_part,
    "of the zoo": lambda: cifarzoo.create_model("airbench94", seed=0),
}
TURNS: dict[str, Callable[[], nn.Module]] = {
    "in object": in_object,
    "own train": OwnTrain,
    "class closure": class_closure,
    **{name: functools.partial(global_variable, use) for name, use in USES.items()},
    "class attribute": class_attribute,
    "slots": slotted,
}
KINDS = {**TWINS, **TURNS}


def hidden_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that only `Holder.held` leads to."""
    held = model.__dict__.get("held")
    if isinstance(held, functools.partial):
        held = held.func
    held = getattr(held, "__self__", held)
    items = list(held.values()) if isinstance(held, dict) else held
    items = items if isinstance(items, list | tuple) else [items]
    return [part for item in items if isinstance(item, nn.Module) for part in item.modules()]


def facts(model: nn.Module) -> tuple[list[bool], list[Tensor]]:
    """Every flag, and a copy of every tensor."""
    modules = [*model.modules(), *hidden_modules(model)]
    tensors = [t for m in modules for t in (*m.parameters(False), *m.buffers(False))]
    return [m.training for m in modules], [t.detach().clone() for t in tensors]


def plain_answer(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says in evaluation mode; it is left there."""
    model.eval()
    for module in hidden_modules(model):
        module.eval()
    with torch.no_grad():
        out: Tensor = model(x)
    return out


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_training_mode_answers_as_in_evaluation_mode_and_stays_as_it_is(
    kind: str, images: Tensor
) -> None:
    torch.manual_seed(0)
    model = KINDS[kind]().train()
    before = facts(model)
    with evaluating(model) as network, torch.no_grad():
        assert not network.training
        answers = [network(images), network(images)]
    flags, tensors = facts(model)
    assert flags == before[0]
    assert all(torch.equal(a, b) for a, b in zip(tensors, before[1], strict=True))
    expected = plain_answer(model, images)
    for answer in answers:
        torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize("kind", TWINS)
def test_no_module_changes_its_mode_while_a_twin_is_in_use(kind: str, images: Tensor) -> None:
    model = TWINS[kind]().train()
    flags = facts(model)[0]
    with evaluating(model) as network, torch.no_grad():
        assert facts(model)[0] == flags
        network(images)
        assert facts(model)[0] == flags


@pytest.mark.parametrize("kind", TURNS)
def test_where_no_twin_can_be_made_threads_take_turns(kind: str, images: Tensor) -> None:
    model = TURNS[kind]().train()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with evaluating(model):
            entered.set()
            leave.wait(10)

    first = threading.Thread(target=hold)
    first.start()
    assert entered.wait(10)
    flags: list[bool] = []

    def ask() -> None:
        with evaluating(model) as network:
            flags.append(network.training)

    second = threading.Thread(target=ask)
    second.start()
    second.join(0.05)
    assert second.is_alive()  # it waits, or the first one's end would switch it back
    leave.set()
    for thread in (first, second):
        thread.join(10)
    assert flags == [False]
    assert model.training


@pytest.mark.parametrize("kind", TURNS)
def test_nobody_waits_for_a_network_that_is_in_evaluation_mode(kind: str) -> None:
    model = TURNS[kind]().eval()
    with evaluating(model):
        others = threading.Thread(target=lambda: evaluating(model).__enter__())
        others.start()
        others.join(10)
        assert not others.is_alive()


def test_own_train_gets_its_state_back() -> None:
    model = OwnTrain().train()
    with evaluating(model):
        assert model.is_deployed
    assert not model.is_deployed
    assert all(module.training for module in model.modules())


def test_modes_that_differ_come_back_one_by_one() -> None:
    model = OwnTrain().train()
    model.block[1].eval()
    with contextlib.suppress(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, True, True, False, True]


@pytest.mark.parametrize("kind", sorted(set(TWINS) - {"scripted", "scripted part"}))
def test_a_twin_shares_every_tensor(kind: str) -> None:
    model = TWINS[kind]()
    with evaluating(model) as network:
        assert {*map(id, network.parameters())} == {*map(id, model.parameters())}
        used = {*map(id, unwrap(network).buffers())}  # AveragedModel counts in one of its own
        assert used == {*map(id, unwrap(model).buffers())}


def test_a_scripted_twin_shares_memory() -> None:
    model = scripted()
    with evaluating(model) as network:
        for ours, theirs in zip(network.parameters(), model.parameters(), strict=True):
            assert ours.data_ptr() == theirs.data_ptr()


def test_a_hook_of_the_twin_is_none_of_the_original(images: Tensor) -> None:
    model, calls = block(), []
    with evaluating(model) as network:
        network.register_forward_hook(lambda *_: calls.append(1))
        model(images)
        assert not calls
        network(images)
    assert calls == [1]


def test_a_hook_that_gathers_features_gathers_them(images: Tensor) -> None:
    model, features = block(), []
    model[0].register_forward_hook(lambda module, args, output: features.append(output))
    with evaluating(model) as network:
        network(images)
    assert len(features) == 1


def test_tied_modules_are_tied_in_the_twin() -> None:
    with evaluating(tied()) as network:
        assert network[0] is network[2]
        assert network[1].weight is network[0][0].weight


def test_a_lazy_network_becomes_what_it_is_meant_to_be(images: Tensor) -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d())
    with evaluating(model) as network, torch.no_grad():
        first = network(images)
    assert type(model[0]) is nn.Conv2d
    assert torch.equal(plain_answer(model, images), first)


def test_what_a_cycle_leads_to_is_evaluated_too(images: Tensor) -> None:
    model = Holder([block()])
    model.held.append(model.held)
    before = facts(model.held[0])
    with evaluating(model) as network, torch.no_grad():
        answer = network(images)
    after = facts(model.held[0])
    assert after[0] == before[0]
    assert all(torch.equal(a, b) for a, b in zip(after[1], before[1], strict=True))
    torch.testing.assert_close(answer, plain_answer(model.held[0], images))


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A group of one process."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_distributed_network_is_looked_through(alone: None, images: Tensor) -> None:
    model = nn.parallel.DistributedDataParallel(block())
    before = facts(model)
    with evaluating(model) as network, torch.no_grad():
        answer = network(images)
        assert facts(model)[0] == before[0]
    assert all(torch.equal(a, b) for a, b in zip(facts(model)[1], before[1], strict=True))
    assert torch.equal(answer, plain_answer(copy.deepcopy(model.module), images))


def test_a_distributed_network_that_computes_more_is_refused(alone: None) -> None:
    class Doubling(nn.parallel.DistributedDataParallel):
        def forward(self, *inputs: Any, **others: Any) -> Any:
            return super().forward(*inputs, **others) * 2

    with (
        pytest.raises(InputError, match=r"Doubling\.forward may wait .* model\.module"),
        evaluating(Doubling(block())),
    ):
        pass


@pytest.mark.parametrize("wrapper", [data_parallel, compiled, lambda: AveragedModel(block())])
def test_layers_keep_their_names_in_the_twin(wrapper: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(wrapper(), block())
    with evaluating(model) as network:
        assert [*dict(network.named_modules())] == [*dict(model.named_modules())]


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"scripted", "scripted part"}))
def test_a_twin_elsewhere_leaves_the_network_where_it_is(kind: str) -> None:
    """The device without values stands for a GPU."""
    model, meta = KINDS[kind]().train(), torch.device("meta")
    tensors = [*model.parameters(), *model.buffers()]
    before = facts(model)
    with evaluating(model, meta) as network:
        assert {t.device for t in (*network.parameters(), *network.buffers())} <= {meta}
    assert all(
        ours is theirs
        for ours, theirs in zip(tensors, [*model.parameters(), *model.buffers()], strict=True)
    )
    flags, values = facts(model)
    assert flags == before[0]
    assert all(torch.equal(a, b) for a, b in zip(values, before[1], strict=True))
