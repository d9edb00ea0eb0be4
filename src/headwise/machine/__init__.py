"""What headwise found on this machine, and how fast it is there."""

from .report import report, threads
from .speed import Case, Speeds, measure

__all__ = ["Case", "Speeds", "measure", "report", "threads"]
