import pytest

from spatial_ttt.scenes.dice import Dice


def test_same_numbers_roll_the_same() -> None:
    a, b = Dice(7, 1), Dice(7, 1)
    assert [a.random() for _ in range(600)] == [b.random() for _ in range(600)]
    assert Dice(7, 1).random() != Dice(7, 2).random()


def test_known_draw() -> None:
    """Pins the stream: a change here changes every home ever made."""
    dice = Dice(0)
    assert [dice.uniform(0.0, 1.0) for _ in range(3)] == [0.4226, 0.4855, 0.7812]


def test_ranges() -> None:
    dice = Dice(3)
    assert {dice.below(4) for _ in range(200)} == {0, 1, 2, 3}
    assert {dice.between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {dice.sign() for _ in range(50)} == {-1, 1}
    assert all(-1.0 <= dice.uniform(-1.0, 2.0) < 2.0 for _ in range(200))


def test_weighted_follows_weights() -> None:
    dice = Dice(5)
    draws = [dice.weighted((("a", 3.0), ("b", 1.0), ("c", 0.0))) for _ in range(4000)]
    assert draws.count("c") == 0
    assert draws.count("a") / 4000 == pytest.approx(0.75, abs=0.03)


def test_shuffled_is_a_permutation_and_leaves_the_input() -> None:
    items = tuple(range(20))
    out = Dice(1).shuffled(items)
    assert sorted(out) == list(items)
    assert out != list(items)
