"""Batches have rows of similar length, none waits for others without need, and threads survive errors."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reprise.serve.queue import BatchQueue, Job, QueueFullError, Waiting, similar


def rows(*lengths: int) -> list[Any]:
    return [{"input_ids": [7] * length} for length in lengths]


def waiting(*lengths: int) -> list[Waiting]:
    job = Job(rows(*lengths), list)
    return [Waiting(job, index, length) for index, length in enumerate(lengths)]


@contextmanager
def queue(run: Any, threads: int = 1, capacity: int = 1000) -> Iterator[BatchQueue]:
    made = BatchQueue(run, capacity=capacity, rows_per_batch=8, threads=threads, on_batch=lambda *_: None)
    yield made
    made.close()


def lengths(batch: list[Any]) -> list[int]:
    return [len(row["input_ids"]) for row in batch]


def test_a_batch_has_the_first_row_and_those_nearest_in_length() -> None:
    batch = similar(waiting(20, 100, 21, 5, 19, 90, 22), 4)
    assert [row.tokens for row in batch] == [20, 21, 19, 22]
    assert [row.tokens for row in similar(waiting(100, 1, 2, 3), 8)] == [100]
    assert [row.tokens for row in similar(waiting(10, 10, 10), 2)] == [10, 10]
    assert similar([], 8) == []


def test_padding_is_at_most_a_quarter_of_the_tokens() -> None:
    batch = similar(waiting(*range(1, 200)), 8)
    sizes = [row.tokens for row in batch]
    assert max(sizes) * len(sizes) <= 1.25 * sum(sizes)


def test_rows_of_several_requests_share_batches_and_each_gets_its_own_outputs() -> None:
    batches: list[list[int]] = []
    pass_on = threading.Event()

    def run(batch: list[Any]) -> list[int]:
        pass_on.wait(10)
        batches.append(lengths(batch))
        return lengths(batch)

    with queue(run) as made:
        jobs = [Job(rows(size, size + 1), list) for size in (30, 10, 30, 10, 30)]
        for job in jobs:
            made.submit(job)
        pass_on.set()
        answers = [job.answer.result(10) for job in jobs]
    assert answers == [[30, 31], [10, 11], [30, 31], [10, 11], [30, 31]]
    assert sorted(map(len, batches), reverse=True)[0] > 2


def test_idle_threads_share_a_request() -> None:
    together = threading.Barrier(2, timeout=10)

    def run(batch: list[Any]) -> list[int]:
        together.wait()  # both threads compute at once
        return lengths(batch)

    with queue(run, threads=2) as made:
        time.sleep(0.1)  # until both wait
        job = Job(rows(5, 5, 5, 5), list)
        made.submit(job)
        assert job.answer.result(10) == [5] * 4


def test_a_cancelled_request_is_not_computed() -> None:
    computed: list[int] = []
    pass_on = threading.Event()

    def run(batch: list[Any]) -> list[int]:
        pass_on.wait(10)
        computed.extend(lengths(batch))
        return lengths(batch)

    with queue(run) as made:
        first, second, third = Job(rows(1), list), Job(rows(50, 51), list), Job(rows(100), list)
        for job in (first, second, third):
            made.submit(job)
        made.cancel(second)
        assert made.waiting() <= 2
        pass_on.set()
        assert (first.answer.result(10), third.answer.result(10)) == ([1], [100])
    assert (sorted(computed), second.answer.cancelled()) == ([1, 100], True)


def test_an_error_is_that_of_its_requests_only() -> None:
    def run(batch: list[Any]) -> list[int]:
        if 13 in lengths(batch):
            raise ValueError("thirteen")
        return lengths(batch)

    def refuse(outputs: list[Any]) -> Any:
        raise KeyError("format")

    with queue(run) as made:
        bad, unformatted, good = Job(rows(13, 100), list), Job(rows(200), refuse), Job(rows(300), list)
        for job in (bad, unformatted, good):
            made.submit(job)
        assert good.answer.result(10) == [300]
        assert isinstance(bad.answer.exception(10), ValueError)
        assert isinstance(unformatted.answer.exception(10), KeyError)


def test_places_are_limited_and_given_back() -> None:
    with queue(lengths, capacity=4) as made:
        with made.admit(1) as admission:
            admission.grow(3)
            admission.grow(2)
            assert made.admitted == 3
            with pytest.raises(QueueFullError):
                admission.grow(5)
            with pytest.raises(QueueFullError), made.admit(2):
                pass
            with made.admit(1):
                assert made.admitted == 4
        assert made.admitted == 0


def test_many_threads_and_requests_lose_nothing() -> None:
    def run(batch: list[Any]) -> list[int]:
        time.sleep(0.0005)
        return lengths(batch)

    with queue(run, threads=4, capacity=10**6) as made:
        jobs = [Job(rows(*(1 + (number * step) % 97 for step in range(1, 6))), list) for number in range(400)]
        for job in jobs[::7]:
            threading.Timer(0.05, made.cancel, [job]).start()
        for job in jobs:
            made.submit(job)
        for number, job in enumerate(jobs):
            if number % 7:
                assert job.answer.result(30) == lengths(list(job.rows))
