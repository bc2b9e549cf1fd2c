"""The metrics of a server for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

# Seconds: a short text takes milliseconds on a processor, and requests end with --timeout.
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
BATCH_ROWS = (1, 2, 4, 8)

TEXT_FORMAT = CONTENT_TYPE_LATEST


class Metrics:
    """Counters and histograms, in a registry of their own."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """Register them.

        Args:
            waiting: returns the length of the queue.
        """
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time, open files
        self.requests = Counter(
            "reprise_requests", "Requests by path and status", ["path", "status"], registry=self.registry
        )
        self.rows = Counter("reprise_rows", "Rows that were answered", registry=self.registry)
        self.seconds = Histogram(
            "reprise_request_seconds",
            "Seconds from request to answer",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram("reprise_batch_rows", "Rows of a batch", buckets=BATCH_ROWS, registry=self.registry)
        self.batch_seconds = Histogram(
            "reprise_batch_seconds", "Seconds that the model takes for a batch", buckets=SECONDS, registry=self.registry
        )
        queue = Gauge("reprise_queue_rows", "Rows that wait for a thread", registry=self.registry)
        queue.set_function(waiting)

    def count_request(self, path: str, status: int, rows: int, seconds: float) -> None:
        """Count a request that has ended; its rows count if they were answered."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        if status == 200:
            self.rows.inc(rows)

    def count_batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        text: bytes = generate_latest(self.registry)
        return text
