"""The data sets that an experiment can name."""

from yeastexp.data.datasets import hdf5 as hdf5
from yeastexp.data.datasets import synthetic_fields as synthetic_fields
from yeastexp.data.datasets import synthetic_yeast as synthetic_yeast
from yeastexp.registry import dataset as dataset
