"""Runs folders of `export --as instanseg` in some PyTorch, as old as that of QuPath; status 1 if cells differ.

pip install torch==2.5.1 numpy        # in an environment of its own
python tests/interop/instanseg.py FOLDER [MORE...]
"""

import sys
from pathlib import Path

import numpy as np
import torch


def main(folders: list[str]) -> int:
    """Give each model its test image, scaled as QuPath scales it, alone and with what else QuPath may give."""
    failed = 0
    for folder in map(Path, folders):
        model = torch.jit.load(str(folder / "instanseg.pt"), map_location="cpu")
        image, wanted = (torch.from_numpy(np.load(folder / f"test_{name}.npy")) for name in ("input", "output"))
        low, high = (np.percentile(image.numpy(), share, axis=(2, 3), keepdims=True) for share in (0.1, 99.9))
        scaled = ((image - torch.from_numpy(low)) / torch.from_numpy(high - low + 1e-6)).clamp(-0.5, 1.5).float()
        for second in ((), (torch.tensor([1], dtype=torch.int32),)):
            with torch.no_grad():
                cells = model(scaled, *second)
            differ = int((cells != wanted).sum())
            failed += differ > 0
            print(f"{folder}: PyTorch {torch.__version__}: {int(cells.max())} cells, {differ} pixels differ")
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
