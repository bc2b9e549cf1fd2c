"""Time gloo's all-reduce, as training sums gradients; one rank, started by torchrun.

`allreduce.py SIZE…`: bytes. Rank 0 prints the minimum seconds for each size as JSON.
"""

import json
import sys
import time

import torch
from torch import distributed

REPEATS = 12


def main(sizes: list[int]) -> None:
    """Sum zeros of each size, REPEATS times."""
    distributed.init_process_group("gloo")
    took = {}
    for size in sizes:
        tensor, seconds = torch.zeros(size // 4), []
        for _ in range(REPEATS):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(tensor)
            seconds.append(time.perf_counter() - began)
        took[size] = min(seconds)
    if distributed.get_rank() == 0:
        print(json.dumps(took))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
