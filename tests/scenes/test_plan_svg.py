"""The plan from above."""

import re
import xml.etree.ElementTree as ElementTree

from spatial_ttt.scenes.homes import make_home
from spatial_ttt.scenes.plan_svg import plan_svg
from spatial_ttt.scenes.scene import Scene
from spatial_ttt.scenes.walk import walk


def test_everything_is_drawn_and_labelled_within_the_picture():
    home = make_home(2)
    camera = walk(home, 0, fps=1.0)
    text = plan_svg(home.scene, camera)
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width")), float(root.get("height"))
    labels = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    for item in home.scene.objects:
        assert f"{item.category} {item.object_id}" in labels
    assert {room.function for room in home.scene.rooms} <= labels
    assert {"0 s", "5 s"} <= labels
    for points in re.findall(r'points="([^"]+)"', text):
        for point in points.split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width and 0 <= y <= height


def test_without_a_camera_or_anything_at_all():
    home = make_home(2)
    assert "#d33" not in plan_svg(home.scene, None)
    ElementTree.fromstring(plan_svg(Scene("empty", "scan", ()), None))
