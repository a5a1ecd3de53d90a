"""Checkpoints that are never half-written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import replace

_WRITERS = ("inline_container", "PytorchStreamWriter")


class WholeCheckpoints(nnUNetTrainer):
    """nnU-Net's trainer; a kill while it saves leaves the earlier checkpoint."""

    def save_checkpoint(self, filename: str) -> None:
        """Write the checkpoint beside its place, then move it there.

        Raises:
            SIKDError: It cannot be written.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        partial = f"{filename}.tmp"  # one name, so that a kill leaves at most one
        try:
            super().save_checkpoint(partial)
            replace(Path(partial), Path(filename))
        except SIKDError:
            raise
        except (OSError, RuntimeError) as error:
            # A RuntimeError of torch's file writer is what it makes of a full disk; others are told as they are.
            if not isinstance(error, OSError) and not any(writer in str(error) for writer in _WRITERS):
                raise
            raise SIKDError(
                f"{filename}: cannot be written ({' '.join(str(error).split())[:200]}); no space left, or the folder "
                "gone? Mend that, then continue with --c: the checkpoint before it is kept"
            ) from error
        finally:
            with suppress(OSError):
                os.remove(partial)
