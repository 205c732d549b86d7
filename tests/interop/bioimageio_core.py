"""Lets bioimageio.core test packages of `export --as bioimageio`; exit status 1 if one fails.

It needs an environment of its own, since bioimageio.core asks for versions of packages that this project does not:

    pip install torch bioimageio.core 'pydantic<2.14' onnxruntime
    python tests/interop/bioimageio_core.py model.zip [MORE...]

ilastik's tiktorch, which no registry of Python has, loads packages by version 0.10.2 (bioimageio.spec 0.5.9.1), gives
blocks of sizes that the package says to the pipeline that is made here, and asks for one input and one output.

With `--image image.npy --labels labels.npy`, (C, H, W) and (H, W) as `yx.load(run).predict(image).labels` gives them,
it also counts the pixels at which the labels that bioimageio.core comes to differ.
"""

import argparse
import inspect
import sys

import numpy as np
from bioimageio.core import (
    PredictionPipeline,
    Tensor,
    create_prediction_pipeline,
    load_model_description,
    test_description,
)
from bioimageio.core.digest_spec import create_sample_for_model

FORMATS = ("torchscript", "onnx")
BLOCKS = ((0, 0), (3, 1))
"""How many steps blocks are higher and wider than the least."""


def blocks(package: str, form: str) -> None:
    """Predict blocks as tiktorch does; an AssertionError if their outputs are not as described."""
    model = load_model_description(package)
    (given,), (found,) = model.inputs, model.outputs
    channels, size = len(given.axes[1].channel_names), given.axes[2].size
    with create_prediction_pipeline(model, weight_format=form) as pipeline:
        for steps in BLOCKS:
            sides = [size.min + number * size.step for number in steps]
            values = np.random.default_rng(0).random((1, channels, *sides), np.float32)
            sample = create_sample_for_model(model, inputs={given.id: values})
            outputs = pipeline.predict_sample_without_blocking(sample).members[found.id].data
            assert outputs.shape == (1, len(found.axes[1].channel_names), *sides) and np.isfinite(outputs).all()


WHOLE = {"skip_input_padding": True, "skip_output_cropping": True}
"""From version 0.11 on images are mirrored at their borders by the halo, unless this is said; 0.10 does not do so."""


def outputs(package: str, image: np.ndarray, form: str) -> np.ndarray:
    """The outputs (O, H, W) of a package for an image (C, H, W) of any size."""
    model = load_model_description(package)
    tensor = Tensor(image[None].astype("float32"), dims=("batch", "channel", "y", "x"))
    known = inspect.signature(PredictionPipeline.predict_sample_without_blocking).parameters
    with create_prediction_pipeline(model, weight_format=form) as pipeline:
        sample = create_sample_for_model(model, inputs={"image": tensor})
        whole = {name: value for name, value in WHOLE.items() if name in known}
        result = pipeline.predict_sample_without_blocking(sample, **whole)
    return np.asarray(result.members["outputs"].data)[0]


def main() -> int:
    """Test each package with each kind of weights."""
    parser = argparse.ArgumentParser()
    parser.add_argument("packages", nargs="+")
    parser.add_argument("--image")
    parser.add_argument("--labels")
    given = parser.parse_args()
    failed = 0
    for package in given.packages:
        for form in FORMATS:
            summary = test_description(package, weight_format=form)
            print(f"{package}: {form} {summary.status}")
            if summary.status != "passed":
                failed += 1
                summary.display()
                continue
            blocks(package, form)
            print("  blocks of other sizes as described")
            if given.image:
                labels = outputs(package, np.load(given.image), form).argmax(0)
                differ = int((labels != np.load(given.labels)).sum())
                print(f"  {differ} of {labels.size:,} labels differ")
                failed += differ > 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
