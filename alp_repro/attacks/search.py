"""Restarts of an attack, one of which may be a search without gradients (`Attack.search`).

Few images come so far: the search has small batches of its own, since one that fillers fill up
would cost as much as a full one. As with the others, their shape never changes.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from alp_repro.attacks.base import Attack
from alp_repro.attacks.batches import Execution
from alp_repro.attacks.pgd import PGD, SEARCH_RESTART
from alp_repro.attacks.programs import AttackProgram, attack_program
from alp_repro.attacks.square import Square

if TYPE_CHECKING:
    import keras

SEARCH_BATCH = 16


def searches_at(attack: Attack, restart: int) -> bool:
    """Whether this restart of the attack, from 0, is its search."""
    return isinstance(attack, PGD) and attack.search > 0 and restart == SEARCH_RESTART


def items_in_batch(attack: Attack, restart: int, batch_size: int) -> int:
    """The items of a batch that begins with this restart, where others have `batch_size`."""
    return SEARCH_BATCH if searches_at(attack, restart) else batch_size


def end_of_kind(attack: Attack, restart: int, end: int) -> int:
    """Up to which restart a batch that begins with this one may go, of those before `end`."""
    if not (isinstance(attack, PGD) and attack.search) or restart > SEARCH_RESTART:
        return end
    return min(end, SEARCH_RESTART + searches_at(attack, restart))


def search_attack(attack: PGD) -> Square:
    """The search as an attack of its own."""
    return Square(eps=attack.eps, nb_iter=attack.search)


def restarts_program(
    model: keras.Model,
    *,
    attack: Attack,
    image_shape: tuple[int, ...],
    seed: int,
    execution: Execution,
) -> AttackProgram:
    """A function of `WorkItems` whose restarts are of one kind; see `attack_program`.

    It takes as many items as `items_in_batch` says. Each kind is compiled when its first batch
    comes.
    """

    @functools.cache
    def program(searches: bool) -> AttackProgram:
        # One device does for so few items.
        small = dataclasses.replace(execution, batch_size=SEARCH_BATCH, strategy=None)
        return attack_program(
            model,
            attack=search_attack(attack) if searches and isinstance(attack, PGD) else attack,
            image_shape=image_shape,
            seed=seed,
            execution=small if searches else execution,
        )

    return lambda items: program(searches_at(attack, int(items.restart[0])))(items)
