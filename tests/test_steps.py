"""Which pairs an optimizer step sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scdpo.training.steps import OptimizerStep, by_question, plan_epochs

keys = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(keys, st.integers(1, 9))
def test_questions_stay_together_unless_they_are_larger_than_a_step(
    some: list[int], most: int
) -> None:
    groups = by_question(some, most)
    assert sorted(i for group in groups for i in group) == list(range(len(some)))
    assert all(len({some[i] for i in group}) == 1 and len(group) <= most for group in groups)
    assert len(groups) == sum(-(-some.count(key) // most) for key in set(some))
    assert by_question(some) == by_question(some, len(some))


@given(keys, st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_sees_every_pair_once_and_no_group_is_torn_apart(
    some: list[int], batch_size: int, seed: int
) -> None:
    groups = by_question(some, batch_size)
    steps = plan_epochs(groups, batch_size, 2, seed)
    epochs = [[s for s in steps if e < s.epochs <= e + 1] for e in range(2)]
    assert [*epochs[0], *epochs[1]] == steps
    assert [epoch[-1].epochs for epoch in epochs] == [1, 2]
    for epoch in epochs:
        assert sorted(i for step in epoch for i in step.examples) == list(range(len(some)))
        for step in epoch:
            assert 0 < len(step.examples) <= batch_size
            inside = set(step.examples)
            assert all(inside >= set(g) or not inside & set(g) for g in groups)


def test_the_seed_decides_the_order() -> None:
    groups = [[i] for i in range(40)]
    steps = plan_epochs(groups, 8, 2, 3)
    assert steps == plan_epochs(groups, 8, 2, 3)
    assert steps != plan_epochs(groups, 8, 2, 4)
    assert steps[:5] != [OptimizerStep(s.examples, s.epochs - 1) for s in steps[5:]]


def test_steps_are_filled_with_groups_that_fit() -> None:
    groups = by_question([n // 3 for n in range(60)] + [100 + n for n in range(20)], 8)
    sizes = [len(step.examples) for step in plan_epochs(groups, 8, 1, 0)]
    assert sum(sizes) == 80
    assert sizes[:-3] == [8] * (len(sizes) - 3)
