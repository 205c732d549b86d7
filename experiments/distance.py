"""A custom task: the distance of each pixel to the background, with its own loss, metric and decoded output."""
import torch
from scipy import ndimage
from torch.nn import functional

from yeastexp import IGNORE, PerImageMetric, Prediction, Task, metric, task

def distance(labels):
    """Pixels to the nearest pixel of class 0, (H, W) float32, at most 16."""
    return torch.from_numpy(ndimage.distance_transform_edt(labels.cpu() > 0)).float().clamp_max(16).to(labels.device)

@task("distance")
class Distance(Task):
    """One output, the distance to the background; a cell is where it is above half a pixel."""
    values, needs_loss = ("distance",), False

    def __init__(self, channels, classes):
        assert classes == 2, "a distance tells background and one class apart"

    def targets(self, sample):
        return distance(sample.labels)[None]

    def loss(self, outputs, targets, criterion):
        known = ~targets.isnan()
        return (functional.smooth_l1_loss(outputs, targets.nan_to_num(), reduction="none") * known).sum() / known.sum()

    def decode(self, outputs):
        return Prediction((outputs[0] > 0.5).long(), values={"distance": outputs[0]})

@metric("distance_error")
class DistanceError(PerImageMetric):
    """Mean absolute error of the distance in pixels, counted in thousandths."""
    higher_is_better = False

    def counts(self, prediction, labels, *, predicted_distance):
        error, known = 1000 * (predicted_distance - distance(labels)).abs().double(), labels != IGNORE
        return torch.stack([error[known].round().sum().long(), known.sum()])

    def score(self, counts):
        return counts[0] / 1000 / counts[1]
