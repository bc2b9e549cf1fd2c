"""torchrun, which says in a line which process ended and how, in place of a page.

What failed in a process stands above that line, and stage.py says below it how to go on.
"""

import logging
import sys

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import main


def run() -> None:
    """Start the processes that the command line says, and wait for them; the exit code is 1 where one failed."""
    logging.disable(logging.ERROR)
    try:
        main()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        how = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        print(f"train: process {rank} ended with {how}", file=sys.stderr)
        sys.exit(1)
    except (RendezvousError, DistError) as lost:
        why = next(iter(str(lost).splitlines()), type(lost).__name__)
        print(f"train: the hosts did not meet: {why}", file=sys.stderr)
        sys.exit(1)
    except SignalException:
        sys.exit(1)  # stage.py's own


if __name__ == "__main__":
    run()
