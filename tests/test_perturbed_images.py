"""The figure of noisy images: a tile for each noise, and what it promises."""

from __future__ import annotations

import itertools

import numpy as np
from studies import overlaps
from toy_store import images, perturbed, written

from dpmedbench import figures
from dpmedbench.mechanisms import capabilities

MODES = list(capabilities("local").modes)


def test_the_picture_has_a_tile_for_each_noise_and_says_its_epsilon(tmp_path):
    source = written(tmp_path)
    noises = list(itertools.product(MODES, (1.0, 4.0)))
    paths = [
        perturbed(source, f"{n}.h5", mode=mode, beta=beta) for n, (mode, beta) in enumerate(noises)
    ]
    figure = figures.draw("perturbed_images", store=source, perturbed=paths)
    assert len(figure.axes) == 2 * (len(noises) + len(MODES))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles.count("β = 4: ε 0.25 a pixel,\n120 an image") == 1
    assert titles.count("β = 4: no ε") == 1
    assert overlaps(figure) == []
    outputs = [tmp_path / f"{name}.svg" for name in "ab"]
    for output in outputs:
        figures.render("perturbed_images", "toy", {"store": source, "perturbed": paths}, [output])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_stretching_undoes_the_scalar(tmp_path):
    """What the picture shows of it: the image, as it was."""
    from dpmedbench.figures.perturbed_images import stretched

    source = written(tmp_path)
    shifted = images(perturbed(source, mode="scalar_per_image", beta=4.0))
    np.testing.assert_allclose(stretched(shifted[0]), stretched(images(source)[0]), atol=1)
