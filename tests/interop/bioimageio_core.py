"""Lets bioimageio.core test packages of `export --as bioimageio`; exit status 1 if one fails.

It needs an environment of its own, since bioimageio.core asks for versions of packages that this project does not:

    pip install torch bioimageio.core 'pydantic<2.14' onnxruntime
    python tests/interop/bioimageio_core.py model.zip [MORE...]
"""

import sys

from bioimageio.core import test_description

FORMATS = ("torchscript", "onnx")


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
    return 1 if failed or not packages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
