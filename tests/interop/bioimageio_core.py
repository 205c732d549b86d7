"""Lets bioimageio.core test packages of `export --as bioimageio`; exit status 1 if one fails.

It needs an environment of its own, since bioimageio.core asks for versions of packages that this project does not:

    pip install torch bioimageio.core 'pydantic<2.14' onnxruntime
    python tests/interop/bioimageio_core.py model.zip [MORE...]

ilastik's tiktorch, which no registry of Python has, loads packages by version 0.10.2 (bioimageio.spec 0.5.9.1), gives
blocks of sizes that the package says to the pipeline that is made here, and asks for one input and one output.
"""

import sys

import numpy as np
from bioimageio.core import create_prediction_pipeline, load_model, test_description
from bioimageio.core.digest_spec import create_sample_for_model

FORMATS = ("torchscript", "onnx")
BLOCKS = ((0, 0), (3, 1))
"""How many steps blocks are higher and wider than the least."""


def blocks(package: str, form: str) -> None:
    """Predict blocks as tiktorch does; an AssertionError if their outputs are not as described."""
    model = load_model(package)
    (given,), (found,) = model.inputs, model.outputs
    channels, size = len(given.axes[1].channel_names), given.axes[2].size
    with create_prediction_pipeline(model, weight_format=form) as pipeline:
        for steps in BLOCKS:
            sides = [size.min + number * size.step for number in steps]
            values = np.random.default_rng(0).random((1, channels, *sides), np.float32)
            sample = create_sample_for_model(model, inputs={given.id: values})
            outputs = pipeline.predict_sample_without_blocking(sample).members[found.id].data
            assert outputs.shape == (1, len(found.axes[1].channel_names), *sides) and np.isfinite(outputs).all()


def main(packages: list[str]) -> int:
    """Test each package with each kind of weights."""
    failed = 0
    for package in packages:
        for form in FORMATS:
            summary = test_description(package, weight_format=form)
            print(f"{package}: {form} {summary.status}")
            if summary.status != "passed":
                failed += 1
                summary.display()
                continue
            blocks(package, form)
            print("  blocks of other sizes as described")
    return 1 if failed or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
