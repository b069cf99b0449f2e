"""What a benchmark returns: a thing measured several times, reported as the median, beside its goal."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """Values of one quantity.

    Attributes:
        name: what is measured.
        unit: of the values.
        values: one a run.
        at_most, at_least: the goal for their median, if there is one.
    """

    name: str
    unit: str
    values: list[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is not None:
            return self.median <= self.at_most
        return None if self.at_least is None else self.median >= self.at_least

    def to_dict(self) -> dict[str, Any]:
        goal = {"at_most": self.at_most, "at_least": self.at_least, "met": self.met}
        return (
            {"name": self.name, "unit": self.unit, "median": self.median, "runs": len(self.values)}
            | goal
            | {"values": self.values}
        )

    def __str__(self) -> str:
        goal = ""
        if self.met is not None:
            bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
            goal = f"; goal {bound}: {'met' if self.met else 'missed'}"
        return f"{self.name}: {self.median:.4g} {self.unit} (median of {len(self.values)}{goal})"


def resident_megabytes(process: int | str = "self", which: str = "VmRSS") -> float:
    """Return the memory that a process holds (`VmRSS`) or has held at most (`VmHWM`), in MB; on Linux."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024 / 1e6
