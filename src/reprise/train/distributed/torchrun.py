"""Run torchrun; report a failed worker in one line instead of a traceback.

The worker's own error stands above that line, and stage.py prints below it how to resume.
"""

import logging
import sys

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import main as torchrun

from reprise.core.display import echo


def main() -> None:
    """Start the workers of the command line and wait for them; exit with 1, or a worker's 2, if one failed."""
    logging.disable(logging.ERROR)
    try:
        torchrun()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        cause = failure.signal_name() if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        echo(f"train: process {rank} ended with {cause}", err=True)
        sys.exit(2 if failure.exitcode == 2 else 1)
    except (RendezvousError, DistError) as error:
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        echo(f"train: rendezvous failed: {problem}", err=True)
        sys.exit(1)
    except SignalException:
        sys.exit(1)  # sent by stage.py


if __name__ == "__main__":
    main()
