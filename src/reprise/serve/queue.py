"""The bounded queue of rows, and the threads that compute them in batches of similar length."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from reprise.onnx.model import Row

# Padding is computed and thrown away: rows join a batch while it has at most this many tokens for each real one.
MAX_PADDED = 1.25

Outputs = list[Any]  # of each row of a request


class QueueFullError(Exception):
    """The queue has no place for a request now."""


@dataclass(eq=False)
class Job:
    """The rows of one request.

    Attributes:
        rows: what the model reads.
        finish: makes the answer from the outputs of all rows; a thread of the queue calls it.
        answer: of the request.
        outputs: of the rows so far.
        left: rows without an output.
    """

    rows: Sequence[Row]
    finish: Callable[[Outputs], Any]
    answer: Future[Any] = field(default_factory=Future)
    outputs: Outputs = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        """Wait for all rows."""
        self.outputs, self.left = [None] * len(self.rows), len(self.rows)


@dataclass(eq=False)
class Waiting:
    """A row in the queue."""

    job: Job
    index: int
    tokens: int


class Admission:
    """The places of a request in the queue."""

    def __init__(self, queue: "BatchQueue") -> None:
        """Hold none yet."""
        self._queue, self.rows = queue, 0

    def grow(self, rows: int) -> None:
        """Hold places for this many rows.

        Raises:
            QueueFullError: there are not enough.
        """
        more = max(0, rows - self.rows)
        if self._queue.admitted + more > self._queue.capacity:
            raise QueueFullError
        self._queue.admitted += more
        self.rows += more


class BatchQueue:
    """A queue of at most `capacity` rows, and the threads that empty it.

    A thread that is free takes the row that has waited longest, and with it those of similar length. Nothing waits for
    a batch to fill: batches grow by themselves while all threads are busy.

    Attributes:
        capacity: rows of all requests that are not yet answered.
        admitted: rows that hold a place, from before they are tokenized until they are answered. Only the event loop
            counts them.
    """

    def __init__(
        self,
        run: Callable[[list[Row]], Any],
        *,
        capacity: int,
        rows_per_batch: int,
        threads: int,
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Start the threads.

        Args:
            run: computes the output of each row, as an array or a list.
            capacity: see above.
            rows_per_batch: at most.
            threads: batches at a time.
            on_batch: is called after each batch with its rows and seconds.
        """
        self.capacity, self.admitted = capacity, 0
        self._run, self._rows_per_batch, self._on_batch = run, rows_per_batch, on_batch
        self._waiting: list[Waiting] = []
        self._idle, self._closed = 0, False
        self._changed = Condition()
        self._threads = [Thread(target=self._work, name=f"batch-{number}", daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def admit(self, rows: int) -> Iterator[Admission]:
        """Hold places for a request, at first for this many rows.

        Raises:
            QueueFullError: there are not enough.
        """
        admission = Admission(self)
        admission.grow(rows)
        try:
            yield admission
        finally:
            self.admitted -= admission.rows

    def submit(self, job: Job) -> None:
        """Add the rows of an admitted request."""
        rows = [Waiting(job, index, len(row["input_ids"])) for index, row in enumerate(job.rows)]
        with self._changed:
            self._waiting += rows
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Take the rows of a request out of the queue; those that a thread computes now are thrown away."""
        job.answer.cancel()
        with self._changed:
            self._waiting = [row for row in self._waiting if row.job is not job]

    def waiting(self) -> int:
        """Return the number of rows that no thread has taken."""
        return len(self._waiting)

    def close(self) -> None:
        """End the threads after the rows that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """Compute batches until the queue is closed."""
        while batch := self._take():
            began = time.perf_counter()
            try:
                outputs = self._run([row.job.rows[row.index] for row in batch])
            except Exception as error:  # of the library, on an input that it cannot compute
                for row in batch:
                    self._settle(row.job, error=error)
                continue
            self._on_batch(len(batch), time.perf_counter() - began)
            for row, output in zip(batch, outputs, strict=True):
                self._store(row, output)

    def _take(self) -> list[Waiting]:
        """Wait for rows, and take a batch of them; none if the queue is closed."""
        with self._changed:
            self._idle += 1
            while not self._waiting and not self._closed:
                self._changed.wait()
            # Idle threads share what waits, so that a request alone is computed by all of them.
            most = min(self._rows_per_batch, -(-len(self._waiting) // self._idle))
            self._idle -= 1
            batch = similar(self._waiting, most)
            taken = set(map(id, batch))
            self._waiting = [row for row in self._waiting if id(row) not in taken]
            return batch

    def _store(self, row: Waiting, output: Any) -> None:
        """Keep the output of a row, and answer the request if it was the last one."""
        job = row.job
        job.outputs[row.index] = output
        with self._changed:
            job.left -= 1
        if job.left == 0 and not job.answer.cancelled():
            try:
                answer = job.finish(job.outputs)
            except Exception as error:  # answered as an error of the server, and this thread stays
                self._settle(job, error=error)
            else:
                self._settle(job, answer)

    def _settle(self, job: Job, answer: Any = None, error: Exception | None = None) -> None:
        """Answer a request, unless another of its batches failed or nobody waits for it."""
        with self._changed:  # two threads may fail at once
            if job.answer.done() or not job.answer.set_running_or_notify_cancel():
                return
            if error:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(answer)


def similar(waiting: Sequence[Waiting], most: int) -> list[Waiting]:
    """Choose the first row and those nearest to it in length, as far as padding allows.

    Args:
        waiting: in the order of arrival.
        most: rows at most.
    """
    if not waiting:
        return []
    first, *others = waiting
    batch, tokens, longest = [first], first.tokens, first.tokens
    for row in sorted(others, key=lambda row: abs(row.tokens - first.tokens)):
        if len(batch) == most or max(longest, row.tokens) * (len(batch) + 1) > MAX_PADDED * (tokens + row.tokens):
            break
        batch.append(row)
        tokens, longest = tokens + row.tokens, max(longest, row.tokens)
    return batch
