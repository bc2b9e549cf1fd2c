"""What a run prints: a progress bar in a terminal, elsewhere a line every few seconds."""

import sys
import time

from tqdm import tqdm

from reprise.core.display import echo

LOG_EVERY_S = 5.0
# What matters least stands last, where a narrow terminal cuts.
BAR = "{desc}|{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"


class Progress:
    """Progress of the optimizer steps; only the main process prints."""

    def __init__(self, total_steps: int, steps_per_epoch: int, epochs: int, *, enabled: bool) -> None:
        """Show a bar if stderr is a terminal."""
        self.total_steps, self.steps_per_epoch, self.epochs, self.enabled = (
            total_steps,
            steps_per_epoch,
            epochs,
            enabled,
        )
        self.bar = tqdm(
            total=total_steps, dynamic_ncols=True, disable=not (enabled and sys.stderr.isatty()), bar_format=BAR
        )
        self.last_line = time.perf_counter()

    def advance(self, steps: int = 1) -> None:
        """Move the bar forward."""
        self.bar.set_description_str(f"epoch {self.epoch(self.bar.n + steps)}/{self.epochs} ", refresh=False)
        self.bar.update(steps)

    def epoch(self, steps_done: int) -> int:
        """Return the epoch, from 1, of the latest of the steps that are done."""
        return max(steps_done - 1, 0) // self.steps_per_epoch + 1

    def show(self, steps_done: int, loss: float, examples_per_second: float, elapsed: float) -> None:
        """Show the mean loss of the latest steps, the speed and the time left; `elapsed` in seconds."""
        self.bar.set_postfix_str(f"{examples_per_second:.0f} examples/s, loss {loss:.3f}", refresh=False)
        now = time.perf_counter()
        if self.bar.disable and self.enabled and now - self.last_line > LOG_EVERY_S:
            self.last_line = now
            left = tqdm.format_interval(elapsed / steps_done * (self.total_steps - steps_done))
            echo(
                f"train: epoch {self.epoch(steps_done)}/{self.epochs}, step {steps_done}/{self.total_steps}, "
                f"loss {loss:.3f}, {examples_per_second:.0f} examples/s, {left} left",
            )

    def show_validation(self, epoch: int, scores: dict[str, float]) -> None:
        """Print the validation metrics of an epoch, counted from 0."""
        if self.enabled:
            listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
            self.bar.write(f"train: epoch {epoch + 1}/{self.epochs}: validation {listed}", file=sys.stdout)
            sys.stdout.flush()

    def show_early_stop(self, epoch: int, metric: str) -> None:
        """Print that the run ends with this epoch, counted from 0."""
        if self.enabled:
            line = f"train: stops early, after epoch {epoch + 1}/{self.epochs}: validation {metric} no longer improves"
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()
