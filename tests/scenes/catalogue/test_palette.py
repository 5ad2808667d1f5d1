from spatial_ttt.scenes.catalogue import palette
from spatial_ttt.scenes.dice import Dice
from spatial_ttt.scenes.shading import Material as Drawn


def test_materials_are_the_renderers() -> None:
    assert [int(m) for m in palette.Material] == [int(m) for m in Drawn]


def test_paints_stay_in_range_and_keep_their_name() -> None:
    for name in palette.COLOR_NAMES:
        for seed in range(5):
            look = palette.paint(Dice(seed), name)
            assert look.name == name
            assert all(0.0 <= c <= 1.0 for c in look.rgb)


def test_toned_keeps_the_material_unless_told() -> None:
    base = palette.exact("red", palette.Material.FABRIC)
    dark = palette.toned(base, 0.5)
    assert dark.rgb[0] < base.rgb[0] and dark.material == palette.Material.FABRIC
    assert palette.toned(base, 1.0, palette.Material.METAL).material == palette.Material.METAL


def test_colours_look_like_their_names() -> None:
    red, green, blue = (palette.exact(n).rgb for n in ("red", "green", "blue"))
    assert red.index(max(red)) == 0 and green.index(max(green)) == 1 and blue.index(max(blue)) == 2
    assert sum(palette.WHITE.rgb) > 2.4 and sum(palette.BLACK.rgb) < 0.2
