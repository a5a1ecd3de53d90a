"""Statistics and report of a benchmark."""

from nnunetv2_sikd.report.write import write_report

__all__ = ["write_report"]
