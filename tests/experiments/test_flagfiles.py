"""Every row, grid and scale that the flagfiles hold, against the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from alp_repro.reporting import tables
from alp_repro.training import Recipe
from experiments.flags import settings

FLAGS_DIR = settings.default_flags_dir()
DATASETS = {1: "mnist", 2: "cifar10", 3: "tiny_imagenet", 4: "tiny_imagenet", 5: "tiny_imagenet"}
ROWS = sorted(
    {(DATASETS[n], row.row) for n in tables.TABLES for row in tables.load_paper_table(n).rows}
)

# Protocol: what a data set's rows share.
SHARED = {
    "mnist": {"epochs": 500, "batch_size": 200, "model": "lenet", "adam_epsilon": 1e-6},
    "cifar10": {
        "epochs": 100,
        "batch_size": 128,
        "model": "resnet20_v2",
        "adam_epsilon": 1e-6,
    },
    "tiny_imagenet": {
        "epochs": 103,
        "max_steps": 40000,
        "batch_size": 256,
        "model": "resnet50_v2",
        "augment": True,
        "adam_epsilon": 1e-8,
        "label_smoothing": 0.1,
        "weight_decay": 1e-4,
        "learning_rate_drops": (80, 90),
        "average_decay": 0.9999,
    },
}
TRAINING_ATTACK = {"mnist": (76.5, 2.55, 40), "cifar10": (16, 2, 10), "tiny_imagenet": (16, 2, 10)}
CLEAN_PAIRING = {"mnist": (0.5, 0.5), "cifar10": (0.25, 0.25), "tiny_imagenet": (0.25, 0.05)}
ALP = {"mnist": 1.0, "cifar10": 0.5, "tiny_imagenet": 0.5}
NOISE = {"mnist": 0.5, "cifar10": 0.06, "tiny_imagenet": 16 / 255}


def recipe_of(dataset: str, row: str, scale: str | None = None) -> Recipe:
    return settings.recipe(
        settings.row_flags(dataset=dataset, row=row, scale=scale, flags_dir=FLAGS_DIR)
    )


@pytest.mark.parametrize(("dataset", "row"), ROWS)
def test_a_row_is_trained_as_the_protocol_says(dataset: str, row: str) -> None:
    recipe = recipe_of(dataset, row)
    for name, value in SHARED[dataset].items():
        assert getattr(recipe, name) == value, name
    assert recipe.learning_rate == 0.001 and recipe.train_images is None
    assert recipe.model_width is None and recipe.attack_warmup_steps == 0

    fraction = 0.5 if row.startswith("at50") else 1.0 if row.startswith("at100") else 0.0
    assert (recipe.clean_weight, recipe.adversarial_weight) == (1 - fraction, fraction)
    clp, lsq = CLEAN_PAIRING[dataset]
    weights = {"clp": clp, "lsq": lsq, "alp": ALP[dataset]}
    assert recipe.penalties == {name: weights[name] for name in weights if name in row.split("_")}
    noisy = row in ("clp", "lsq")
    assert recipe.noise_stddev == pytest.approx(NOISE[dataset] if noisy else 0, abs=1e-7)
    tiny = dataset == "tiny_imagenet"
    assert not noisy or recipe.clip_noise is not tiny
    apart = dataset == "cifar10" and row in ("clp", "lsq", "at100")
    assert recipe.separate_passes == apart

    if not (fraction or "alp" in row):
        assert recipe.attack is None
        return
    attack = recipe.attack
    assert attack is not None
    eps, eps_iter, nb_iter = TRAINING_ATTACK[dataset]
    assert (attack.eps, attack.eps_iter) == pytest.approx((eps / 255, eps_iter / 255))
    assert (attack.nb_iter, attack.dtype, attack.random_start) == (nb_iter, "float32", True)
    assert attack.target == ("least_likely" if "ll" in row.split("_") else "none")
    assert (recipe.joint_batch, recipe.attack_batch_statistics) == (tiny, not tiny)


@pytest.mark.parametrize("scale", settings.SCALES)
@pytest.mark.parametrize(("dataset", "row"), ROWS)
def test_a_scale_changes_no_method(dataset: str, row: str, scale: str) -> None:
    if scale not in settings.scales_of(FLAGS_DIR, dataset):
        pytest.skip(f"{dataset} has no scale {scale}")
    changed = set(settings.changes(recipe_of(dataset, row), recipe_of(dataset, row, scale)))
    shorter = {
        "epochs",
        "attack_warmup_steps",
        "train_eps_iter",
        "train_nb_iter",
        "train_dtype",
        "train_attack_dtype",
    }
    smaller = shorter | {"train_images", "batch_size", "attack_warmup_nb_iter"}
    allowed = {
        "paper": set(),
        "quick": smaller | {"model_width"},
        "published": shorter | {"round_weights", "model_width"},
        "seeds": shorter,
        "followups": smaller | {"max_steps", "model_width", "batch_norm_decay"},
        "smoke": {
            "epochs",
            "train_images",
            "attack_warmup_steps",
            "train_eps_iter",
            "train_nb_iter",
            "model",
            "model_width",
            "batch_size",
        },
    }
    assert changed <= allowed[scale]


@pytest.mark.parametrize("number", tables.TABLES)
def test_a_tables_flagfile_names_its_rows_and_columns(number: int) -> None:
    lines = Path(FLAGS_DIR, "tables", f"table{number}.cfg").read_text().split()
    flags = dict(line[2:].split("=", 1) for line in lines if line.startswith("--"))
    paper = tables.load_paper_table(number)
    assert (flags["table"], flags["dataset"]) == (str(number), DATASETS[number])
    assert flags["rows"].split(",") == [row.row for row in paper.rows]

    values = settings.parse([f"--dataset={DATASETS[number]}", f"--grid={flags['grid']}"])
    grid = settings.attack_grid(values)
    ours = [(a.eps * 255, a.eps_iter * 255, a.nb_iter, a.restarts, a.target) for a in grid]
    for attack, column in zip(ours, paper.columns, strict=True):
        assert attack[:4] == pytest.approx(
            (column.eps, column.eps_iter, column.nb_iter, column.restarts)
        )
        assert attack[4] == column.target
    assert all((a.name, a.loss, a.success) == ("pgd", "cross_entropy", "last") for a in grid)
