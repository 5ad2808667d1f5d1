"""The shading model: its records, its law of light, and that the generated code is the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spatial_ttt.errors import SceneError
from spatial_ttt.scenes.scene import PartKind
from spatial_ttt.scenes.shading import (
    PATTERN_FIELDS,
    PATTERNS,
    RECORD_SIZE,
    Material,
    Surface,
    Vec3,
    pack_parts,
    shade,
)
from spatial_ttt.scenes.shading_code import ARGUMENTS, shade_glsl, shade_triton
from tests.scenes.solids import make_parts, random_parts

BOX = (PartKind.BOX, (0.0, 0.0, 1.0), (0.5, 0.5, 1.0))


def surface(material: Material = Material.PLAIN, **changes) -> Surface:
    """A point on the front (-y) face of a box a metre wide and two high, 5 mm a pixel."""
    plain = {
        "local": Vec3(0.1, -0.5, 0.2),
        "normal": Vec3(0.0, -1.0, 0.0),
        "world": Vec3(0.1, -0.5, 1.2),
        "world_normal": Vec3(0.0, -1.0, 0.0),
        "footprint": 0.005,
        "half": Vec3(0.5, 0.5, 1.0),
        "color": Vec3(0.5, 0.5, 0.5),
        "object_id": 1.0,
        "pattern": tuple(getattr(PATTERNS[material], name) for name in PATTERN_FIELDS),
    }
    return Surface(**{**plain, **changes})


def color(at: Surface) -> np.ndarray:
    return np.asarray(np.broadcast_arrays(*shade(at, np)))


def random_surfaces(count: int) -> Surface:
    rng = np.random.default_rng(3)
    records = pack_parts(random_parts(3, count))
    normal = rng.normal(size=(3, count))
    up = rng.normal(size=(3, count))
    half = records[:, 4:7].T
    return Surface(
        Vec3(*(half * rng.uniform(-1.0, 1.0, (3, count)))),
        Vec3(*(normal / np.linalg.norm(normal, axis=0))),
        Vec3(*rng.uniform(-5.0, 5.0, (3, count))),
        Vec3(*(up / np.linalg.norm(up, axis=0))),
        rng.uniform(0.001, 0.1, count),
        Vec3(*half),
        Vec3(*records[:, 20:23].T),
        records[:, 7],
        tuple(records[:, [11, 15, 19, *range(23, 32)]].T),
    )


def arguments(at: Surface) -> list[np.ndarray]:
    """A surface in the order of the generated function."""
    flat: list[np.ndarray] = []
    for value in at:
        flat.extend(value if isinstance(value, tuple) else [value])
    return flat


def test_record_holds_the_part() -> None:
    parts = random_parts(0, 40)
    record = pack_parts(parts)
    assert record.shape == (40, RECORD_SIZE) and record.dtype == np.float32
    np.testing.assert_allclose(record[:, 0:3], parts.center, rtol=1e-6)
    np.testing.assert_array_equal(record[:, 3], parts.kind)
    np.testing.assert_allclose(record[:, 4:7], parts.half_size, rtol=1e-6)
    np.testing.assert_array_equal(record[:, 7], parts.object_id)
    for axis, column in enumerate((8, 12, 16)):
        np.testing.assert_allclose(record[:, column : column + 3], parts.axes[:, axis], rtol=1e-6)
    np.testing.assert_allclose(record[:, 20:23], parts.color, rtol=2**-8)
    pattern = record[:, [11, 15, 19, *range(23, 32)]]
    for row, material, kind in zip(pattern, parts.material, parts.kind, strict=True):
        wanted = [getattr(PATTERNS[Material(material)], name) for name in PATTERN_FIELDS]
        if kind != PartKind.BOX:
            wanted[PATTERN_FIELDS.index("edge_strength")] = 0.0
        np.testing.assert_allclose(row, wanted, rtol=2**-8)


def test_record_refuses_what_cannot_be_drawn() -> None:
    parts = make_parts(BOX)
    with pytest.raises(SceneError, match="nothing to draw"):
        pack_parts(make_parts())
    with pytest.raises(SceneError, match=r"material holds \[77\]"):
        pack_parts(replace(parts, material=np.array([77], np.uint8)))
    with pytest.raises(SceneError, match="right-handed"):
        pack_parts(replace(parts, axes=parts.axes * np.array([1.0, 1.0, -1.0])[:, None]))
    with pytest.raises(SceneError, match="above zero"):
        pack_parts(replace(parts, half_size=np.zeros((1, 3))))


def test_colors_are_finite_and_within_range() -> None:
    result = color(random_surfaces(5000))
    assert np.isfinite(result).all()
    assert result.min() >= 0.0 and result.max() <= 1.0 + 1e-6


@pytest.mark.parametrize("language", ["triton", "glsl"])
def test_generated_code_is_the_model(language: str) -> None:
    at = random_surfaces(3000)
    scope = {"tl": np, "np": np}
    if language == "triton":
        source = shade_triton()
    else:  # GLSL's lines, read as Python
        head, *lines = shade_glsl().splitlines()
        assert head.startswith("vec3 shade(") and head.count("float ") == len(ARGUMENTS)
        source = f"def shade({', '.join(ARGUMENTS)}):\n"
        for line in lines[:-1]:
            line = line.strip().rstrip(";").replace("&&", "&").replace("||", "|")
            line = line.removeprefix("float ").removeprefix("bool ").replace("vec3", "")
            if "?" in line:
                target, rest = line.split(" = ")
                condition, values = rest.split(" ? ")
                line = f"{target} = np.where({condition}, {values.replace(' : ', ', ')})"
            source += f"    {line}\n"
        scope |= {"min": np.minimum, "max": np.maximum, "floor": np.floor, "sqrt": np.sqrt}
    exec(source, scope)
    np.testing.assert_allclose(scope["shade"](*arguments(at)), color(at), atol=1e-6)


def test_light_comes_from_above_and_fades_near_the_floor() -> None:
    high, low = color(surface()), color(surface(world=Vec3(0.1, -0.5, 0.05)))
    top = color(
        surface(
            local=Vec3(0.1, 0.0, 1.0),
            normal=Vec3(0.0, 0.0, 1.0),
            world_normal=Vec3(0.0, 0.0, 1.0),
            world=Vec3(0.1, 0.0, 2.0),
        )
    )
    assert (top > high + 0.02).all() and (high > low + 0.05).all()


def test_the_faces_of_a_box_differ() -> None:
    sides = []
    for x, y in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        local, normal = Vec3(0.5 * x, 0.5 * y, 0.2), Vec3(x, y, 0.0)
        world = Vec3(0.5 * x, 0.5 * y, 1.2)
        sides.append(
            color(surface(local=local, normal=normal, world_normal=normal, world=world)).mean()
        )
    assert np.diff(np.sort(sides)).min() > 0.01


def test_edges_are_darker_and_vanish_far_away() -> None:
    local = Vec3(0.498, -0.5, 0.2)
    near, far = surface(local=local), surface(local=local, footprint=0.2)
    middle = surface()
    assert color(near).mean() < color(middle).mean() - 0.03
    ratio = color(far).mean() / color(surface(footprint=0.2)).mean()
    assert 0.98 < ratio < 1.0 + 1e-6


@pytest.mark.parametrize("material", list(Material))
def test_patterns_show_up_close_and_not_far(material: Material) -> None:
    x = np.linspace(-0.35, 0.35, 4001)  # far enough from the box's own edges

    def contrast(footprint: float) -> float:
        at = surface(material, local=Vec3(x, -0.5, 0.31), footprint=footprint)
        return float(color(at).reshape(3, -1).std(1).max())

    has_pattern = material not in (Material.PLAIN, Material.WALL_PAINT, Material.WINDOW)
    assert (contrast(0.0005) > 0.004) == has_pattern
    if material != Material.SCREEN:  # its picture stays
        assert contrast(0.3) < 0.02


def test_windows_and_screens_need_no_light() -> None:
    dark = {"color": Vec3(0.0, 0.0, 0.0), "world": Vec3(0.1, -0.5, 0.02)}
    assert color(surface(**dark)).max() < 0.01
    assert color(surface(Material.WINDOW, **dark)).min() > 0.5
    thin = {"half": Vec3(0.5, 0.02, 0.3), "local": Vec3(0.1, -0.02, 0.1)}
    assert color(surface(Material.SCREEN, **dark, **thin)).max() > 0.2


def test_srgb_curve_is_near_the_standard() -> None:
    linear = np.linspace(0.0, 1.0, 500)
    standard = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(1.13 * np.sqrt(linear) - 0.13 * linear - standard)[linear > 0.01].max() < 0.013
    window = surface(Material.WINDOW, color=Vec3(0.0, 0.0, 0.0), footprint=1e-4)
    blue = 1.13 * np.sqrt(0.92) - 0.13 * 0.92
    np.testing.assert_allclose(color(window)[2], blue, atol=1e-6)
