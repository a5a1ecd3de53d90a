"""Python imports this at its start where ``PYTHONPATH`` names its folder: Linux with Windows' and macOS' habits.

New processes are spawned, and nothing is mapped into memory (nnU-Net maps no files on Windows).
"""

import multiprocessing
import os

if os.environ.get("ELSEWHERE"):
    multiprocessing.set_start_method("spawn")

    import blosc2

    _open = blosc2.open

    def _open_unmapped(*args, **kwargs):
        kwargs.pop("mmap_mode", None)
        return _open(*args, **kwargs)

    blosc2.open = _open_unmapped
