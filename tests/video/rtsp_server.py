"""A real RTSP camera for the tests, run by the system's Python: `rtsp_server.py PORT` serves /live.

`--check` in place of the port only tells, by its exit status, whether all it needs is installed.
Needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0 and GStreamer's good and ugly plugins.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=128,framerate=20/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 "
    "! rtph264pay name=pay0 pt=96 )"
)


def main() -> None:
    Gst.init(None)
    if sys.argv[1] == "--check":
        parts = ("videotestsrc", "x264enc", "rtph264pay")
        sys.exit(not all(map(Gst.ElementFactory.find, parts)))
    server = GstRtspServer.RTSPServer()
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
