from ignite.engine import Events
from yeastexp import handler

@handler("log_scores")
class LogScores:
    def __init__(self, context): self.log = context.log
    def attach(self, trainer, validator):
        validator.add_event_handler(Events.COMPLETED, lambda: self.log(f"scores: {validator.state.metrics}"))
