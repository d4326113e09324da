"""What captions and the front page say of the cells that were run."""

from pathlib import Path

import jinja2
import pytest
import yaml
from report_tables import TABLES, manifest

from dpmedbench import captions, cells, config, config_files, figures, rst
from dpmedbench.report import findings

STUDY = config.load(yaml.safe_load(config_files.CONFIG.read_text()))
CELLS = cells.every(STUDY)
FRONT_PAGE = Path(config_files.ROOT, "workflow", "report", "workflow.rst")
ODD = "**kwargs of `x_`, |y| __init__() *"
REASONS = (ODD, "1. so::", "- no", r"a\b {{ c }} <d>", ".. warning:: x", "==== µ 中")


def of(dataset):
    """The facts of a dataset of the default study."""
    return captions.facts(STUDY, [cell for cell in CELLS if cell.dataset == dataset])


def test_a_caption_names_what_its_dataset_was_trained_with():
    duke, xray = of("phantom_duke"), of("phantom_chest_xray")
    assert set(duke) == set(figures.FIELDS)
    assert duke["models"] == "U-Net"
    assert duke["mechanisms"] == "Non-private, Opacus flat, Bookkeeping"
    assert duke["noise"] == "σ = 0.5, σ = 1"
    assert (xray["models"], xray["noise"]) == ("ResNet18", "β = 0.5")


def test_what_is_left_out_or_missing_is_in_no_caption():
    """A grid asks for the product; cells of another task or without an engine are not run."""
    grid = STUDY.grids[0].model_copy(
        update={"models": ["unet", "resnet18"], "mechanisms": ["non_private", "bookkeeping"]}
    )
    study = STUDY.model_copy(update={"grids": [grid]})
    run = [cell for cell in cells.every(study) if cells.why_not(study, cell) is None]
    assert captions.facts(study, run)["models"] == "U-Net"
    finished = [cell for cell in run if cell.mechanism == "non_private"]
    said = captions.facts(study, finished)
    assert (said["mechanisms"], said["noise"]) == ("Non-private", "none")


def test_a_figure_of_one_task_tells_of_its_cells_alone():
    shown = [figures.catalog()[name] for name in ("accuracy_table", "claims_verdicts")]
    found = captions.of_figures(STUDY, CELLS, shown)
    assert "on phantom_chest_xray [generated], phantom_aptos [generated], in" in " ".join(
        found["accuracy_table"].split()
    )
    assert "Opacus flat" not in found["accuracy_table"]
    assert "phantom_duke" in found["claims_verdicts"]


@pytest.mark.parametrize(
    ("privacy", "approximate"),
    [
        ({"accountant": "gdp"}, True),
        ({"accountant": "gdp", "sampling": "shuffled", "neighbouring": "zero_out"}, False),
        ({}, False),
    ],
)
def test_an_accountant_that_gives_no_bound_is_said_to(privacy, approximate):
    study = STUDY.model_copy(update={"privacy": STUDY.privacy.model_copy(update=privacy)})
    assert ("no bound" in captions.facts(study, CELLS)["accountant"]) == approximate
    assert ("is no bound" in front_page(study, CELLS, {}, {}, {})) == approximate


def test_the_front_page_says_when_the_test_set_is_scored():
    for name, classified in (("phantom_duke", False), ("phantom_chest_xray", True)):
        run = [cell for cell in CELLS if cell.dataset == name]
        html = front_page(STUDY, run, {}, {}, {})
        assert ("scored after every epoch too" in html) == classified
        assert "the weights of the last epoch." in html


def test_the_front_page_tells_of_noise_on_images_where_a_cell_has_it():
    for name, local in (("phantom_duke", False), ("phantom_chest_xray", True)):
        run = [cell for cell in CELLS if cell.dataset == name]
        assert ("Local mechanisms train" in front_page(STUDY, run, {}, {}, {})) == local


def test_learning_rates_are_those_of_the_mechanisms():
    found = of("phantom_duke")["learning_rate"]
    assert found == "0.005 for Non-private, 0.01 for Opacus flat and Bookkeeping"
    assert of("phantom_aptos")["learning_rate"] == "0.01"
    assert of("phantom_chest_xray")["learning_rate"] == "0.005"


def test_generated_data_are_called_so():
    assert of("phantom_duke")["dataset"] == "phantom_duke [generated]"
    values = yaml.safe_load(config_files.CONFIG.read_text())
    values["datasets"]["phantom_duke"] |= {"source": "download"}
    study = config.load(values)
    assert captions.facts(study, CELLS[:1])["dataset"] == "phantom_duke"


def front_page(study, run, left_out, missing, found):
    """The front page as Snakemake makes it, as HTML."""
    publish_parts = pytest.importorskip("docutils.core").publish_parts
    front = captions.front_page(study, run, left_out, missing, found)
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        FRONT_PAGE.read_text()
    )
    text = template.render(snakemake={"config": {"front": front}}, categories=[{"name": "1  x"}])
    return publish_parts(text, writer_name="html")["html_body"]


def test_nothing_on_the_front_page_is_taken_for_markup():
    renamed = {name: table.replace({"duke": "x_"}) for name, table in TABLES.items()}
    study = STUDY.model_copy(update={"title": 3 * f"{ODD} "})
    html = front_page(
        study,
        [cell.model_copy(update={"dataset": "phantom_duke"}) for cell in CELLS],
        {reason: ["x_/unet_", "__y__"] for reason in REASONS},
        dict.fromkeys(("x_/unet", *REASONS), ODD),
        findings.find(renamed, [manifest(), manifest(torch="2.12.0_")]),
    )
    assert "system-message" not in html
    assert html.count(f": {ODD}</") == 1 + len(REASONS)
    assert "x_, U-Net: 1.30 (Bookkeeping) to 1.80" in html
    assert "torch 2.13.0+cpu (1 cell) and 2.12.0_ (1 cell), Opacus 1.6.0, commit aaaaaaa" in html
    assert "<strong>Not all cells were trained with the same torch</strong>" in html
    assert "(x_/unet_, __y__)" in html
    assert f'<h1 class="title">{ODD} {ODD} {ODD}</h1>' in html


@pytest.mark.parametrize("title", [*REASONS, "x" * 200, "中" * 60])
def test_any_title_is_a_title(title):
    html = front_page(STUDY.model_copy(update={"title": title}), CELLS, {}, {}, {})
    assert "system-message" not in html
    assert f'<h1 class="title">{jinja2.filters.escape(title)}</h1>' in html


def test_the_front_page_names_what_was_run_and_what_is_generated():
    html = front_page(STUDY, CELLS[:1], {}, {}, {})
    assert "over the datasets phantom_duke [generated], the models U-Net and" in html
    assert "the mechanisms Non-private;" in html


def test_escaped_values_keep_their_shape():
    value = {"a_b": ["x_", 1, None, {"c": "*"}], "d": ("`",)}
    assert rst.escaped(value) == {"a_b": [r"x\_", 1, None, {"c": r"\*"}], "d": [r"\`"]}
