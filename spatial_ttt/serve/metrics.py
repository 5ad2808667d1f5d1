"""Figures for Prometheus, in a registry of the server's own."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Everything the server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        at: dict[str, Any] = {"registry": self.registry}
        self.frames = Counter(
            "spatial_ttt_frames", "Frames by what became of them", ["status"], **at
        )
        self.frame_seconds = Histogram(
            "spatial_ttt_frame_seconds",
            "From a frame's arrival to its acknowledgement",
            buckets=_STEP_BUCKETS,
            **at,
        )
        self.answers = Counter("spatial_ttt_answers", "Answers by how they ended", ["end"], **at)
        self.first_piece_seconds = Histogram(
            "spatial_ttt_first_piece_seconds",
            "From a question to the first piece of its answer",
            buckets=_STEP_BUCKETS,
            **at,
        )
        self.answer_seconds = Histogram(
            "spatial_ttt_answer_seconds",
            "From a question to the end of its answer",
            buckets=_STEP_BUCKETS,
            **at,
        )
        self.saves = Counter("spatial_ttt_saves", "Snapshots written", ["end"], **at)
        self.save_seconds = Histogram(
            "spatial_ttt_save_seconds", "Writing a snapshot", buckets=_STEP_BUCKETS, **at
        )
        self.turned_away = Counter(
            "spatial_ttt_turned_away", "Sessions refused for lack of room", **at
        )
        self.requests = Counter("spatial_ttt_requests", "HTTP requests", ["method", "status"], **at)
        self.decoder_deaths = Counter(
            "spatial_ttt_decoder_deaths", "Decoder processes that died or hung", **at
        )
        self.sessions = Gauge("spatial_ttt_sessions", "Sessions", ["state"], **at)
        self.promised_bytes = Gauge(
            "spatial_ttt_promised_bytes", "State bytes promised to sessions", **at
        )
        self.engine_bytes = Gauge(
            "spatial_ttt_engine_bytes", "Bytes set aside for the engine that sessions share", **at
        )
        self.state_bytes = Gauge("spatial_ttt_state_bytes", "State bytes in use", **at)
        self.timeline_bytes = Gauge(
            "spatial_ttt_timeline_bytes", "Bytes of the timelines of open sessions", **at
        )
        self.heap_live_bytes = Gauge(
            "spatial_ttt_heap_live_bytes", "Bytes allocated and not freed (glibc; else 0)", **at
        )
        self.budget_bytes = Gauge("spatial_ttt_budget_bytes", "State bytes there are", **at)
        self.steps_waiting = Gauge("spatial_ttt_steps_waiting", "Model steps begun or queued", **at)
        self.connections = Gauge("spatial_ttt_connections", "Open WebSockets", **at)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
