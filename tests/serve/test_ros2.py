"""The ROS 2 bridge against a real server, with messages of ROS's shape; its node where rclpy is there."""

from __future__ import annotations

import importlib.util
import json
from types import SimpleNamespace

import pytest

from spatial_ttt.generate import Decoding
from spatial_ttt.serve.client import Server
from spatial_ttt.serve.ros2 import Bridge, _served, main
from tests.serve.parts import live, offline, png


def image(index, seconds, data=None):
    """A sensor_msgs/CompressedImage."""
    stamp = SimpleNamespace(sec=int(seconds), nanosec=round((seconds % 1) * 1e9))
    data = png(index) if data is None else data
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), format="png", data=list(data))


def test_pictures_go_in_at_the_rate_asked_for_and_answers_come_out(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        bridge = Bridge(session, fps=2, max_new_tokens=12)
        taken = [bridge.on_image(image(n // 5, 1000.0 + n / 10)) for n in range(20)]
        assert [n for n, was_taken in enumerate(taken) if was_taken] == [0, 5, 10, 15]
        assert not bridge.on_image(image(4, 1002.0, b"not a picture"))
        bridge._stream.flush()
        answer = json.loads(bridge.on_question("How many?"))
        expected = "".join(offline(4).ask("How many?", Decoding(max_new_tokens=12)))
        assert (answer["answer"], answer["seconds_seen"]) == (expected, 1.5)
        assert "error" in json.loads(bridge.on_question(" "))
        response = _served(bridge.on_question)(
            SimpleNamespace(question="How many?"), SimpleNamespace(answer="")
        )
        assert json.loads(response.answer)["answer"] == expected
        bridge.close()


def test_a_clock_that_is_set_back_and_a_node_that_starts_again_go_on(tmp_path):
    with live(tmp_path) as server, Server(server.url) as client:
        session = client.open()
        bridge = Bridge(session, fps=2)
        for seconds in (50.0, 50.5, 7.0, 7.5):  # a bag that is played again
            assert bridge.on_image(image(0, seconds))
        bridge.close()
        assert session.stats()["seconds_seen"] == pytest.approx(1.5)
        bridge = Bridge(session, fps=2)
        assert bridge.on_image(image(0, 90.0))
        bridge.close()
        stats = session.stats()
    assert (stats["seconds_seen"], stats["num_frames"], stats["refused"]) == (
        pytest.approx(2.0),
        5,
        0,
    )


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="ROS 2 is not installed")
def test_the_node_answers_over_topics(tmp_path):
    import rclpy
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import String

    from spatial_ttt.serve.ros2 import _join

    rclpy.init()
    try:
        with live(tmp_path) as server, Server(server.url) as client:
            node = rclpy.create_node("spatial_ttt_test")
            bridge = Bridge(client.open(), fps=2)
            _join(node, bridge)
            heard = []
            node.create_subscription(String, "answer", lambda m: heard.append(m.data), 10)
            pictures = node.create_publisher(CompressedImage, "image/compressed", 10)
            questions = node.create_publisher(String, "question", 10)
            pictures.publish(CompressedImage(format="png", data=png(0)))
            questions.publish(String(data="How many?"))
            for _ in range(200):
                rclpy.spin_once(node, timeout_sec=0.1)
                if heard:
                    break
            assert json.loads(heard[0])["question"] == "How many?"
            bridge.close()
    finally:
        rclpy.try_shutdown()


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is here")
def test_without_ros_a_sentence_says_so(capsys):
    assert main() == 1
    assert capsys.readouterr().err.startswith("error: this needs ROS 2's rclpy")
