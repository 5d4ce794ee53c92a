"""What several threads do at once: the answers of one, and nothing changed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cifarzoo
from cifarzoo import ImageSet, Logger, Trainer, create_model, evaluate, predict
from cifarzoo.compute.seeding import own_generator
from cifarzoo.errors import ArgumentError
from cifarzoo.evaluation import measure_cost
from cifarzoo.training.loggers import RunStart

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
WAIT = 60.0  # seconds; nobody waits so long unless something hangs


class Meeting(nn.Module):
    """Lets threads go on only when all of them are inside the network."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(threads)
        self.is_open = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_open:
            self.barrier.wait(WAIT)
        return x


class Gate(nn.Module):
    """Both threads meet inside the network; the one called "slow" goes on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier, self.may_go = threading.Barrier(2), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.barrier.wait(WAIT)
        if threading.current_thread().name.startswith("slow"):
            assert self.may_go.wait(WAIT)
        return x


def network(first: nn.Module) -> nn.Module:
    """Small, with statistics that move and answers that are random in training mode."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(first, *layers, *head)


def state(model: nn.Module) -> tuple[list[bool], list[Tensor]]:
    """Every flag, and a copy of every tensor."""
    tensors = [*model.parameters(), *model.buffers()]
    return [m.training for m in model.modules()], [t.detach().clone() for t in tensors]


def is_as_before(model: nn.Module, before: tuple[list[bool], list[Tensor]]) -> bool:
    flags, tensors = state(model)
    return flags == before[0] and all(map(torch.equal, tensors, before[1]))


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that take turns far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


CALLS: dict[str, Callable[[nn.Module, ImageSet], Any]] = {
    "predict": lambda model, images: predict(model, images, **CPU),
    "evaluate": lambda model, images: evaluate(model, images, **CPU).to_dict(),
}


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("call", CALLS)
def test_one_that_ends_earlier_switches_nothing_for_one_that_goes_on(
    call: str, mode: bool, sample_test: ImageSet
) -> None:
    images = sample_test.subset(range(8))
    gate = Gate()
    model = network(gate).train(mode)
    before = state(model)
    found: dict[str, Any] = {}

    def ask(name: str) -> None:
        found[name] = CALLS[call](model, images)
        if name == "fast":
            gate.may_go.set()

    threads = [threading.Thread(target=ask, args=(n,), name=n) for n in ("fast", "slow")]
    for thread in threads:  # the fast one is inside first: it would restore the mode too early
        thread.start()
        while thread.name == "fast" and not gate.barrier.n_waiting:
            thread.join(0.001)
    for thread in threads:
        thread.join(WAIT)
    assert is_as_before(model, before)
    model[0] = nn.Identity()
    assert found["fast"] == found["slow"] == CALLS[call](model, images)


@pytest.mark.parametrize("call", CALLS)
def test_eight_threads_get_the_answers_of_one_and_leave_everything_as_it_is(
    call: str, switching: None, sample_test: ImageSet
) -> None:
    count, rounds = 8, 6
    model = network(Meeting(count)).train()
    model[2].eval()  # modes may differ
    sets = [sample_test.subset(range(4 * i, 4 * i + 4)) for i in range(count)]
    expected = [CALLS[call](model, images) for images in sets]
    before = state(model)
    model[0].is_open = False

    def ask(number: int) -> int:
        answers = [CALLS[call](model, sets[number]) for _ in range(rounds)]
        return sum(answer != expected[number] for answer in answers)

    with ThreadPoolExecutor(count) as pool:
        wrong = sum(pool.map(ask, range(count)))
    assert wrong == 0
    assert is_as_before(model, before)


def test_threads_share_a_network_of_the_zoo(switching: None, sample_test: ImageSet) -> None:
    model = create_model("resnet20", pretrained=True)
    before = state(model)
    sets = [sample_test.subset(range(4 * i, 4 * i + 4)) for i in range(4)]
    expected = [predict(model, images, **CPU) for images in sets]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: predict(model, sets[i % 4], **CPU), range(16)))
    assert [answer == expected[i % 4] for i, answer in enumerate(found)] == [True] * 16
    assert is_as_before(model, before)


LOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "summary": cifarzoo.summary,
    "measure_cost": lambda model: measure_cost(model, **CPU),
}


WATCHED: list[nn.Module] = []
SEEN: list[tuple[bool, int]] = []


class Watch(nn.Module):
    """Looks at the network that another holder of it would see."""

    def forward(self, x: Tensor) -> Tensor:
        for model in vars(sys.modules[__name__])["WATCHED"]:  # no name that a twin would follow
            SEEN.append((model.training, len(model[1]._forward_hooks)))
        return x


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_only_looks_at_a_network_switches_nothing(look: str) -> None:
    """Those who hold the same network see neither another mode nor foreign hooks."""
    WATCHED.clear()
    model = network(Watch()).train()
    WATCHED.append(model)
    before = state(model)
    LOOKS[look](model)
    assert set(SEEN) == {(True, 0)}
    assert is_as_before(model, before)


def test_sixteen_threads_build_one_network_from_one_seed(switching: None) -> None:
    expected = create_model("resnet20", seed=7).state_dict()
    with ThreadPoolExecutor(16) as pool:
        built = list(pool.map(lambda _: create_model("resnet20", seed=7), range(16)))
    differing = sum(
        not all(map(torch.equal, model.state_dict().values(), expected.values())) for model in built
    )
    assert differing == 0


def test_a_seed_leaves_the_draws_of_other_threads_alone(switching: None) -> None:
    torch.manual_seed(1)
    expected = [torch.rand(3) for _ in range(300)]
    torch.manual_seed(1)
    ended = threading.Event()

    def build() -> None:
        while not ended.is_set():
            create_model("simple", seed=7)

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    drawn = [torch.rand(3) for _ in range(300)]
    ended.set()
    for thread in threads:
        thread.join(WAIT)
    assert all(map(torch.equal, drawn, expected))


def test_a_seed_gives_the_network_of_torchs_own_seed() -> None:
    torch.manual_seed(7)
    expected = create_model("airbench94").state_dict()
    found = create_model("airbench94", seed=7).state_dict()
    assert all(map(torch.equal, found.values(), expected.values()))


def test_a_seed_for_a_network_reseeds_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError(f"all generators of all GPUs would begin anew, with {seed}")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch, "manual_seed", refuse)
    state = torch.get_rng_state()
    create_model("simple", seed=7)
    assert torch.equal(torch.get_rng_state(), state)


DRAWS: dict[str, Callable[[], Tensor]] = {
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(5),
    "randint": lambda: torch.randint(10, (5,)),
    "randint from": lambda: torch.randint(3, 10, (5,)),
    "randperm": lambda: torch.randperm(10),
    "rand_like": lambda: torch.rand_like(torch.zeros(5)),
    "normal": lambda: torch.normal(0.0, 1.0, (5,)),
    "normal_": lambda: torch.empty(20).normal_(),
    "bernoulli": lambda: torch.full((20,), 0.5).bernoulli(),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 5),
    "orthogonal_": lambda: nn.init.orthogonal_(torch.empty(3, 3)),
    "trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(7)),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_whatever_draws_takes_the_own_generator(draw: str) -> None:
    torch.manual_seed(3)
    expected = DRAWS[draw]()
    before = torch.get_rng_state()
    with own_generator(3):
        found = DRAWS[draw]()
    assert torch.equal(found, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_has_no_generator_and_is_repeatable_all_the_same() -> None:
    before = torch.get_rng_state()

    def draw() -> Tensor:
        with own_generator(3):
            return torch.ops.aten.native_dropout(torch.ones(50), 0.5, True)[0]

    assert torch.equal(draw(), draw())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_values_needs_no_generator() -> None:
    with torch.device("meta"):
        model = create_model("simple", seed=7)
    assert all(parameter.is_meta for parameter in model.parameters())


class Hold(Logger):
    """Holds a run at its start."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    def on_start(self, run: RunStart) -> None:
        self.entered.set()
        assert self.leave.wait(WAIT)


@pytest.fixture
def short() -> cifarzoo.Recipe:
    return cifarzoo.Recipe(epochs=1, batch_size=50)


def test_a_second_trainer_in_another_thread_is_refused_with_the_reason(
    few: ImageSet, short: cifarzoo.Recipe
) -> None:
    hold = Hold()
    first = Trainer(create_model("simple", seed=0), short, loggers=[hold], **CPU)
    other = create_model("simple", seed=0)
    before = state(other)
    thread = threading.Thread(target=first.fit, args=(few,))
    thread.start()
    assert hold.entered.wait(WAIT)
    try:
        with pytest.raises(ArgumentError, match=r"at work in another thread.*one after"):
            Trainer(other, short, **CPU).fit(few)
        assert is_as_before(other, before)
    finally:
        hold.leave.set()
        thread.join(WAIT)
    Trainer(other, short, **CPU).fit(few)
    assert is_as_before(other, state(first.model))


def test_a_run_within_a_run_of_the_same_thread_is_none_of_its_business(
    few: ImageSet, short: cifarzoo.Recipe
) -> None:
    class Nested(Logger):
        def on_start(self, run: RunStart) -> None:
            Trainer(create_model("simple", seed=1), short, **CPU).fit(few)

    nested, plain = (create_model("simple", seed=0) for _ in range(2))
    Trainer(nested, short, loggers=[Nested()], **CPU).fit(few)
    Trainer(plain, short, **CPU).fit(few)
    assert is_as_before(nested, state(plain))


def test_asking_a_network_while_it_is_trained_does_not_change_the_training(
    few: ImageSet, short: cifarzoo.Recipe, switching: None
) -> None:
    asked, plain = (create_model("deep_bn", seed=0) for _ in range(2))
    Trainer(plain, short, **CPU).fit(few)
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            predict(asked, few.images[:2], **CPU)

    thread = threading.Thread(target=ask)
    thread.start()
    Trainer(asked, short, **CPU).fit(few)
    ended.set()
    thread.join(WAIT)
    assert is_as_before(asked, state(plain))


@pytest.mark.slow
def test_a_seed_brings_no_compiler_along() -> None:
    """Torch's compiler takes more than a second to import."""
    code = (
        "import sys, cifarzoo\ncifarzoo.create_model('simple', seed=7)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
