"""A ROS 2 node between a camera and a server's session: pictures in, questions in, answers out.

    python -m spatial_ttt.serve.ros2 --ros-args -p url:=http://127.0.0.1:8000 -p session:=ID

    image/compressed  sensor_msgs/CompressedImage   JPEG or PNG, watched at `fps` a second
    question          std_msgs/String               asked
    answer            std_msgs/String               JSON: question, answer, seconds_seen, seen
    ask               spatial_ttt_msgs/srv/Ask      the same as a service, where that package is built (deploy/ros2)

Only `main` needs rclpy (it comes with ROS 2, not from PyPI); `Bridge` is the work itself.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from spatial_ttt.errors import ConfigError, SpatialTTTError, VideoError
from spatial_ttt.serve.client import RemoteSession, Server

log = logging.getLogger(__name__)


class Bridge:
    """A session fed from ROS messages; pictures come on one thread, questions on any."""

    def __init__(
        self, session: RemoteSession, *, fps: float = 2.0, max_new_tokens: int = 128
    ) -> None:
        self._session = session
        self._stream = session.stream()
        self._period = 1.0 / fps
        self._max_new_tokens = max_new_tokens
        self._first: float | None = None  # s, the stamp of the first picture taken
        self._last: float | None = None
        stats = session.stats()
        self._start = float(stats["seconds_seen"]) + self._period if stats["num_frames"] else 0.0
        self._lock = threading.Lock()

    def on_image(self, message: Any) -> bool:
        """A sensor_msgs/CompressedImage; whether it was taken (others come too soon, or are none)."""
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        with self._lock:
            if self._last is not None and 0 <= stamp - self._last < self._period - 1e-6:
                return False
            if self._first is None or (self._last is not None and stamp < self._last):
                # The first, or a clock that was set back (a bag that starts again): go on from here.
                before = 0.0 if self._first is None else self._elapsed() + self._period
                self._first = stamp - before
            self._last = stamp
            time = self._start + self._elapsed()
        try:
            self._stream.send(bytes(message.data), time)
        except VideoError as error:
            log.warning("a picture of format %r was left out: %s", message.format, error)
            return False
        return True

    def _elapsed(self) -> float:
        assert self._first is not None and self._last is not None
        return self._last - self._first

    def on_question(self, question: str) -> str:
        """The answer as JSON; a refusal is told in its `error`."""
        try:
            found = self._session.answer(question, max_new_tokens=self._max_new_tokens)
        except SpatialTTTError as error:
            return json.dumps({"question": question, "error": str(error)})
        return json.dumps({"question": question} | found)

    def close(self) -> None:
        """Send what is left; the session stays."""
        self._stream.close()


def main() -> int:
    """Run the node until ROS stops it; the exit code."""
    try:
        _run()
    except SpatialTTTError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _run() -> None:
    try:
        import rclpy
    except ImportError as error:
        raise ConfigError(
            "this needs ROS 2's rclpy, which no package index has: source ROS 2's setup.bash first, and use a "
            "Python that it was built for"
        ) from error
    rclpy.init()
    node = rclpy.create_node("spatial_ttt")
    url = str(node.declare_parameter("url", "http://127.0.0.1:8000").value)
    session_id = str(node.declare_parameter("session", "").value)
    fps = float(node.declare_parameter("fps", 2.0).value)
    with Server(url, os.environ.get("SPATIAL_TTT_TOKEN")) as server:
        session = server.session(session_id) if session_id else server.open("ros2", clock="mend")
        node.get_logger().info(f"session {session.session_id} of {url}")
        bridge = Bridge(session, fps=fps)
        try:
            _join(node, bridge)
            executor = rclpy.executors.MultiThreadedExecutor()
            rclpy.spin(node, executor)
        except KeyboardInterrupt:
            pass
        finally:
            bridge.close()
            rclpy.try_shutdown()


def _join(node: Any, bridge: Bridge) -> None:
    """Topics and the service of a node."""
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage
    from std_msgs.msg import String

    pictures, questions = MutuallyExclusiveCallbackGroup(), ReentrantCallbackGroup()
    answers = node.create_publisher(String, "answer", 10)
    node.create_subscription(
        CompressedImage,
        "image/compressed",
        bridge.on_image,
        qos_profile_sensor_data,
        callback_group=pictures,
    )
    node.create_subscription(
        String,
        "question",
        lambda message: answers.publish(String(data=bridge.on_question(message.data))),
        10,
        callback_group=questions,
    )
    try:
        from spatial_ttt_msgs.srv import Ask
    except ImportError:
        node.get_logger().info("no service: spatial_ttt_msgs is not built; use the topics")
        return
    node.create_service(Ask, "ask", _served(bridge.on_question), callback_group=questions)


def _served(answer: Callable[[str], str]) -> Callable[[Any, Any], Any]:
    def serve(request: Any, response: Any) -> Any:
        response.answer = answer(request.question)
        return response

    return serve


if __name__ == "__main__":
    sys.exit(main())
