"""A small network made private by the two lines of `bookkeeping.PrivacyEngine`."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dpmedbench.bookkeeping import PrivacyEngine


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)).double()


def data(records=24):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(records, 1, 6, 6, dtype=torch.float64, generator=random)
    return images, torch.randint(3, (records,), generator=random)


def private(
    model=None,
    criterion=None,
    lr=1.0,
    batch_size=8,
    records=24,
    engine=None,
    optimizer=torch.optim.SGD,
    **options,
):
    model = model or network()
    loader = DataLoader(TensorDataset(*data(records)), batch_size=batch_size)
    arguments = {"noise_multiplier": 0.0, "max_grad_norm": 0.5, "seed": 3} | options
    return (engine or PrivacyEngine()).make_private(
        module=model,
        optimizer=optimizer([p for p in model.parameters() if p.requires_grad], lr=lr),
        criterion=criterion or nn.CrossEntropyLoss(),
        data_loader=loader,
        **arguments,
    )


def step(model, optimizer, criterion, batches):
    """What one step takes from the weights, on the parts of one batch."""
    batches = list(batches)
    criterion.ledger.drew(sum(len(x) for x, _ in batches))
    before = [p.detach().clone() for p in model.parameters()]
    for x, y in batches:
        criterion(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
    return [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]
