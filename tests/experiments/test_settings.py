from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from absl import flags

from alp_repro.attacks import PGD
from alp_repro.errors import InputError
from alp_repro.training import Recipe
from experiments.evidence import deviations
from experiments.flags import settings
from experiments.running import devices

PLAIN = PGD(eps=0.1, eps_iter=0.1, nb_iter=1)
FLAGS_DIR = settings.default_flags_dir()


def test_a_spec_is_an_attack_on_the_models_scale() -> None:
    values = settings.parse(["--dataset=mnist", "--loss=margin"])
    attack = settings.parse_attack(
        "pgd,eps=51,eps_iter=25.5,nb_iter=7,restarts=3,target=each,momentum=0.5,gradient_noise=51",
        values,
    )
    assert (attack.eps, attack.eps_iter, attack.nb_iter, attack.restarts) == (0.2, 0.1, 7, 3)
    assert (attack.loss, attack.target) == ("margin", "each")
    assert (attack.momentum, attack.gradient_noise) == (0.5, 0.2)


def test_what_a_spec_leaves_out_is_the_data_sets() -> None:
    for dataset, eps in (("mnist", 76.5), ("cifar10", 16), ("tiny_imagenet", 16)):
        values = settings.parse([f"--dataset={dataset}"])
        for method in ("pgd", "apgd", "spsa", "strong"):
            assert settings.parse_attack(method, values).eps == pytest.approx(eps / 255)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("fgsm", "unknown method 'fgsm'"),
        ("pgd,eps", "KEY=VALUE, got 'eps'"),
        ("pgd,steps=3", "unknown key 'steps'"),
        ("pgd,eps=big", "eps='big'"),
        ("pgd,eps=10,eps_iter=20", "eps_iter 20: .*eps is 10"),
        ("pgd,nb_iter=0", "nb_iter 0"),
        ("pgd,restarts=-1", "restarts -1"),
        ("pgd,eps=-1", "eps -1"),
        ("pgd,eps=1e-300", "eps=1e-300: too small for float32"),
        ("pgd,loss=hinge", "loss='hinge'"),
        ("pgd,random_start=maybe", "random_start='maybe'"),
        ("pgd,eps=10,nb_iter=4,eps=20", "eps is given twice"),
        ("pgd,nb_iter=3e9", "nb_iter='3e9'"),
        ("pgd,restarts=1e30", "restarts='1e30'"),
    ],
)
def test_a_bad_spec_is_named(spec: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        settings.parse_attack(spec, settings.parse(["--dataset=mnist"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--regularizer=clp"], "--regularizer=clp --regularizer_weight=0"),
        (["--regularizer_weight=0.5"], "--regularizer=none --regularizer_weight=0.5"),
        (["--adversarial_fraction=0.5"], "--train_eps is required"),
        (["--regularizer=alp", "--regularizer_weight=1"], "--train_eps is required"),
        (["--regularizer=clq"], "'clq'; expected one of none, clp, lsq, alp"),
        (["--regularizer=clp:0.5,lsq"], "a weight, as in lsq:0.5"),
        (["--regularizer=clp:0.5,clp:1"], "clp is given twice"),
        (["--regularizer=clp:0.5", "--regularizer_weight=1"], "leave --regularizer_weight out"),
        (["--regularizer=clp:-0.5"], "clp -0.5"),
        (["--regularizer=alp:0.5,lsq:0.1"], "--train_eps is required"),
        (["--epochs=0"], "epochs 0"),
        (["--batch_size=-5"], "batch_size -5"),
        (["--noise_stddev=-1"], "noise_stddev"),
        (["--learning_rate_drops=soon"], "whole numbers"),
    ],
)
def test_a_contradiction_is_named(flags: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        settings.recipe(settings.parse(["--dataset=mnist", *flags]))


def test_any_combination_that_makes_sense_is_a_recipe() -> None:
    values = settings.parse(
        [
            "--dataset=mnist",
            "--regularizer=lsq",
            "--regularizer_weight=0.1",
            "--noise_stddev=0.2",
            "--adversarial_fraction=0.25",
            "--train_eps=51",
            "--train_eps_iter=5.1",
            "--train_nb_iter=3",
            "--train_target=random",
            "--learning_rate_drops=3,5",
        ]
    )
    recipe = settings.recipe(values)
    assert (recipe.clean_weight, recipe.adversarial_weight) == (0.75, 0.25)
    assert recipe.penalties == {"lsq": 0.1}
    assert recipe.attack is not None and recipe.attack.target == "random"
    assert recipe.learning_rate_drops == (3, 5)


def test_several_penalties_have_a_weight_each() -> None:
    values = settings.parse(["--dataset=mnist", "--regularizer=lsq:0.1,clp:0.5"])
    assert settings.recipe(values).penalties == {"clp": 0.5, "lsq": 0.1}


def test_unknown_rows_scales_and_grids_are_named_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"unknown row 'cpl' of mnist: .*one of .*clp"):
        settings.row_flags(dataset="mnist", row="cpl", scale=None, flags_dir=FLAGS_DIR)
    with pytest.raises(InputError, match=r"unknown scale 'fast' of mnist: .*one of smoke"):
        settings.row_flags(dataset="mnist", row="clp", scale="fast", flags_dir=FLAGS_DIR)
    with pytest.raises(InputError, match=r"unknown --grid=table9: .*one of .*table1"):
        settings.attack_grid(settings.parse(["--grid=table9"]))
    with pytest.raises(InputError, match=r"no attack .*--grid=table1 or --attack="):
        settings.attack_grid(settings.parse([]))


def test_a_folder_without_flagfiles_is_named(tmp_path: Path) -> None:
    nowhere = f"{re.escape(str(tmp_path))}.*--flags_dir"
    with pytest.raises(InputError, match=nowhere):
        settings.row_flags(dataset="mnist", row="clp", scale=None, flags_dir=tmp_path)
    with pytest.raises(InputError, match=nowhere):
        settings.attack_grid(settings.parse(["--grid=table1", f"--flags_dir={tmp_path}"]))
    values = flags.FlagValues()
    settings.define_table_flags(values)
    values(["table", "--table=1", f"--flags_dir={tmp_path}"])
    with pytest.raises(InputError, match=nowhere):
        settings.fill_in_table(values)


def test_threads_that_no_machine_has_are_refused() -> None:
    values = flags.FlagValues()
    devices.define_flags(values)
    with pytest.raises(flags.Error, match=r"--threads"):
        values(["binary", "--threads=2147483648"])


def test_a_scale_bounds_restarts() -> None:
    values = settings.parse(["--grid=table1", "--max_restarts=3"])
    grid = [settings.capped(attack, values) for attack in settings.attack_grid(values)]
    assert [attack.restarts for attack in grid] == [1, 1, 3]


@pytest.mark.parametrize(
    "flag",
    ["max_restarts=0", "eval_batch_size=0", "eval_batch_size=10000000000", "seed=-1", "seed=1e3"],
)
def test_a_number_out_of_range_is_named(flag: str) -> None:
    with pytest.raises(InputError, match=f"--{flag}: ") as caught:
        settings.parse([f"--{flag}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [None, "a/b", "..", ".x", "a\\b", "a\0b", "λ" * 51, "x" * 300])
def test_a_run_needs_a_name(row: str | None) -> None:
    with pytest.raises(InputError, match=r"expected .*name") as caught:
        settings.run_dir(settings.parse([f"--row={row}"] if row else []))
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError, match=r"expected .*name"):
        settings.row_flags(dataset="mnist", row=row or "", scale=None, flags_dir=FLAGS_DIR)


def test_flags_offer_what_the_library_knows() -> None:
    values = settings.parse([])
    for flag, field in (("loss", "loss"), ("attack_engine", "engine"), ("success", "success")):
        for choice in values[flag].parser.enum_values:
            dataclasses.replace(PLAIN, **{field: choice})
    with pytest.raises(InputError, match=r"one of cross_entropy, margin, dlr, mixed"):
        dataclasses.replace(PLAIN, loss="hinge")
    assert set(values["loss"].parser.enum_values) == {"cross_entropy", "margin", "dlr", "mixed"}


def test_the_protocols_spsa_takes_40_steps() -> None:
    attack = settings.parse_attack("spsa", settings.parse(["--dataset=mnist"]))
    assert (attack.nb_iter, attack.learning_rate) == (40, 0.01)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Recipe)])
def test_a_setting_without_a_value_in_the_paper_is_described(name: str) -> None:
    """A reader of a table's heading does not know what None stands for."""
    text = deviations.in_words({name: (None, 7)})
    assert "7" in text or name in ("round_weights", "statistics_passes")
    assert "None" not in text and "full" not in text
