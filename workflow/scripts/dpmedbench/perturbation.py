"""A store with noise on its images: drawn once an image, for every cell of a study.

It is the store that it was made of (`store`), but for `images`, int16 in steps of 1/255, and for
the `digest`. Its provenance has `perturbation`: mode, beta, randomness, and the digest `of` the
store without noise.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from dpmedbench.console import track
from dpmedbench.files import replacing
from dpmedbench.privacy.local import perturbed
from dpmedbench.privacy.randomness import Randomness, stream
from dpmedbench.store import open_store


def randomness(dataset: str, mode: str, beta: float, seed: int | None) -> Randomness:
    """Where the noise on the images of `dataset` comes from; None: from the operating system.

    Each mode and beta has draws of its own: of one image with the noise n and with 2 n, who sees
    both computes it.
    """
    return stream(seed, f"{dataset}/{mode}/{beta!r}")


def write(path: Path, source: Path, mode: str, beta: float, randomness: Randomness) -> None:
    """Write the store `source` with noise on every image, those of the test set too.

    `mode`, `beta` and `randomness` are as in `privacy.local.perturbed`. One image is in memory at a
    time. UserError where `source` is no store.
    """
    import h5py

    with (
        open_store(source) as clean,
        replacing(path) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        whole = clean.images.file
        for name in set(whole) - {"images"}:
            whole.copy(name, file)
        shape = clean.images.shape
        images = file.create_dataset("images", shape, np.int16, chunks=(1, *shape[1:]))
        digest = hashlib.sha256(clean.digest.encode())
        for row in track(range(len(images)), f"{clean.title}: {mode}, beta {beta:g}", len(images)):
            image = perturbed(clean.images[row], mode, beta, randomness)
            images[row] = image
            digest.update(image)
        perturbation = {
            "mode": mode,
            "beta": beta,
            "randomness": randomness.title,
            "of": clean.digest,
        }
        file.attrs.update(whole.attrs)
        file.attrs.update(
            digest=digest.hexdigest(),
            provenance=json.dumps(clean.provenance | {"perturbation": perturbation}),
        )
