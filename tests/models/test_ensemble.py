import numpy as np

from recsys_kd.models.ensemble import Ensemble


class Fixed:
    schema = "the schema"

    def __init__(self, logits):
        self.logits = np.array(logits, dtype=np.float32)

    def score(self, batch):
        return self.logits


def test_an_ensemble_scores_with_the_mean_logit():
    both = Ensemble([Fixed([1.0, -2.0]), Fixed([3.0, 0.0])])
    assert both.score(None).tolist() == [2.0, -1.0] and both.score(None).dtype == np.float32
    assert both.schema == "the schema"
