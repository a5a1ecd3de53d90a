"""What a row is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        title: What is bad, for people.
        command: What is typed in the workspace, without ``nnUNetv2_sikd`` unless it is a command of nnU-Net's.
        says: Parts that the message must have: the file's name first, where a file is at fault.
        damage: Makes the workspace's input bad.
        workspace: Name of its template.
        status: Exit status.
        library: Regular expressions of what a library puts into the message, shown as ``…``.
        leaves: Patterns of what may be new afterwards: whole files of earlier cases, empty locks.
    """

    title: str
    command: str
    says: tuple[str, ...]
    damage: Damage = lambda folder: None
    workspace: str = "trained"
    status: int = 1
    library: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The command that the row belongs to."""
        return self.command.split()[0]

    @property
    def name(self) -> str:
        """For pytest."""
        return f"{self.section}-{self.title}".replace(" ", "_")


@dataclass(frozen=True)
class Valid:
    """An unusual input that must work.

    Attributes:
        title: What is unusual.
        command: What is typed.
        makes: Files that must be there afterwards.
        starts: First word of the command of nnU-Net's that must be reached; empty if the command does all itself.
        change: Makes the input unusual.
        workspace: Name of its template.
    """

    title: str
    command: str
    change: Damage = lambda folder: None
    makes: tuple[str, ...] = ()
    starts: str = ""
    workspace: str = "trained"

    @property
    def section(self) -> str:
        return self.command.split()[0]

    @property
    def name(self) -> str:
        return f"{self.section}-{self.title}".replace(" ", "_")
