"""The loader of the two-line way: Poisson batches, each for one step and no other."""

import pytest
import torch
from per_sample_loop import clipped_sums
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from two_lines import data, network, private, step

from dpmedbench.bookkeeping import PrivacyEngine
from dpmedbench.errors import UserError


def test_batches_are_poisson_and_may_be_empty():
    model, optimizer, criterion, loader = private(batch_size=1, records=24, noise_multiplier=1.0)
    assert len(loader) == 24
    sizes = []
    for images, labels in loader:
        sizes.append(len(images))
        step(model, optimizer, criterion, [(images, labels)])
    assert 0 in sizes
    assert max(sizes) > 1
    assert all(torch.isfinite(p).all() for p in model.parameters())


def backward(model, criterion, batch):
    images, labels = batch
    criterion(model(images), labels).backward()


@pytest.mark.parametrize("anew", [False, True])
def test_two_batches_in_one_step_are_refused(anew):
    """Epsilon is of one batch a step: accumulated, cleared in between, or of an epoch before."""
    model, optimizer, criterion, loader = private()
    batches = iter(loader)
    backward(model, criterion, next(batches))
    optimizer.zero_grad()
    later = next(batches)
    later = next(iter(loader)) if anew else later
    with pytest.raises(UserError, match="a batch before this one that no step has followed"):
        backward(model, criterion, later)


def test_a_batch_that_is_skipped_is_refused_at_the_next():
    """Which batch is empty is chance that nobody may see."""
    model, _, criterion, loader = private()
    batches = iter(loader)
    next(batches)
    with pytest.raises(UserError, match="after every batch, also an empty one"):
        backward(model, criterion, next(batches))


def test_one_batch_in_two_steps_is_refused():
    """One draw would be counted as two."""
    model, optimizer, criterion, loader = private()
    batch = next(iter(loader))
    backward(model, criterion, batch)
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(UserError, match="found a batch that a step has released already"):
        backward(model, criterion, batch)


def test_a_step_without_a_batch_is_refused():
    model, optimizer, criterion, loader = private(noise_multiplier=1.0)
    with pytest.raises(UserError, match="found no batch since the step before, expected one step"):
        optimizer.step()
    for batch in loader:
        backward(model, criterion, batch)
        optimizer.step()
        with pytest.raises(UserError, match="this one would be noise alone"):
            optimizer.step()
        optimizer.zero_grad()


class Inherited(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


def test_an_optimizer_that_steps_twice_is_refused():
    """Torch runs its hooks for both, and the second would put noise in the place of the sums."""
    torch.optim.SGD(network().parameters())  # its class has hooks from its first instance on
    model, optimizer, criterion, loader = private(optimizer=Inherited, noise_multiplier=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    backward(model, criterion, next(iter(loader)))
    with pytest.raises(UserError, match="calls that of its base class"):
        optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_an_epoch_may_end_early():
    model, optimizer, criterion, loader = private()
    for _ in range(3):
        for number, batch in enumerate(loader):
            if number == 1:
                break
            backward(model, criterion, batch)
            optimizer.step()
            optimizer.zero_grad()


def test_a_batch_that_failed_may_be_tried_again():
    """In halves, say, where memory ran out."""
    model, optimizer, criterion, loader = private()
    images, labels = next(iter(loader))
    backward(model, criterion, (images[:1], labels[:1]))
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    with pytest.raises(UserError, match="holds a gradient from elsewhere"):
        backward(model, criterion, (images[1:], labels[1:]))
    optimizer.zero_grad()
    before = [p.detach().clone() for p in model.parameters()]
    for part in zip(images.split(2), labels.split(2), strict=True):
        backward(model, criterion, part)
    optimizer.step()
    losses = nn.CrossEntropyLoss(reduction="none")
    wanted = clipped_sums(network(), losses, images, labels, "abadi", (0.5,))
    for old, new, total in zip(before, model.parameters(), wanted, strict=True):
        torch.testing.assert_close(old - new.detach(), total / 8, rtol=1e-9, atol=1e-15)


def test_gradients_that_were_set_to_zero_are_in_the_way():
    """And the sentence says what is not."""
    model, optimizer, criterion, loader = private()
    batches = iter(loader)
    backward(model, criterion, next(batches))
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    batch = next(batches)
    with pytest.raises(UserError, match=r"call optimizer\.zero_grad\(set_to_none=True\) first"):
        backward(model, criterion, batch)
    optimizer.zero_grad(set_to_none=True)
    backward(model, criterion, batch)


def test_a_record_twice_in_one_step_is_refused():
    model, _, criterion, loader = private()
    images, labels = next(iter(loader))
    criterion(model(images), labels).backward()
    with pytest.raises(UserError, match=r"gradients of \d+ records for a batch of \d+"):
        criterion(model(images), labels).backward()


def test_batches_from_elsewhere_are_refused():
    model, _, criterion, _ = private()
    images, labels = data()
    with pytest.raises(UserError, match="found no batch of the private loader"):
        criterion(model(images), labels).backward()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_was_only_looked_at_does_not_count(workers):
    images, labels = data()
    model = network()
    engine = PrivacyEngine(accountant="rdp")
    model, optimizer, criterion, loader = engine.make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(TensorDataset(images, labels), batch_size=8, num_workers=workers),
        noise_multiplier=1.0,
        max_grad_norm=0.5,
        seed=3,
    )
    next(iter(loader))
    for images, labels in loader:
        for x, y in zip(images.split(3), labels.split(3), strict=True):
            criterion(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert engine.steps == 3


class Half(torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(12))


@pytest.mark.parametrize(
    "sampler",
    [Half(), torch.utils.data.RandomSampler(range(24), replacement=True)],
)
def test_a_sampler_that_leaves_records_out_is_refused(sampler):
    model = network()
    with pytest.raises(UserError, match=f"data_loader: found {type(sampler).__name__}, which does"):
        PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            data_loader=DataLoader(TensorDataset(*data()), batch_size=8, sampler=sampler),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )


def made_of(dataset):
    model = network()
    return PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(dataset, batch_size=2),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )


def test_batches_that_cannot_be_empty_are_refused_before_one_is():
    """A list of names has no empty form; the first empty batch came by chance, in mid-training."""
    images, labels = data(4)
    rows = [
        (image, label, f"{n}.png")
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    with pytest.raises(
        UserError, match=r"data_loader: found batches of which none can be empty \(Un"
    ):
        made_of(rows)
    made_of([{"image": image, "label": label} for image, label, _ in rows])


def test_a_subset_that_repeats_records_is_refused():
    whole = TensorDataset(*data())
    with pytest.raises(UserError, match="found a Subset that repeats 2 of its 5 indices"):
        made_of(torch.utils.data.Subset(whole, [0, 0, 0, 1, 2]))
    made_of(torch.utils.data.Subset(whole, torch.tensor([0, 3, 1])))
