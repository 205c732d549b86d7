"""Ignite's MLflowLogger: losses and scores in MLflow, by default in a store of files within the run directory."""

import os
from importlib.util import find_spec

from ignite.engine import Events
from ignite.handlers import MLflowLogger, global_step_from_engine

from yeastexp import UserError, handler


@handler("mlflow")
class MLflow:
    """Logs the training loss every `every` steps, and each validation's scores; `uri` names another store."""

    def __init__(self, context, uri: str = "", every: int = 10):
        if not find_spec("mlflow"):
            raise UserError("needs the package mlflow; pip install mlflow-skinny")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow wants to be asked for by now
        self.logger = MLflowLogger(tracking_uri=uri or (context.folder / "mlruns").resolve().as_uri())
        self.every = every

    def attach(self, trainer, validator):
        event = Events.ITERATION_COMPLETED(every=self.every)
        self.logger.attach_output_handler(trainer, event, "train", output_transform=lambda loss: {"loss": loss.item()})
        step = global_step_from_engine(trainer, Events.ITERATION_COMPLETED)
        self.logger.attach_output_handler(
            validator, Events.COMPLETED, "val", metric_names="all", global_step_transform=step
        )

    def close(self):
        self.logger.close()
