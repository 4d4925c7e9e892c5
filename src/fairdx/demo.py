"""The settings of `fairdx demo`."""

from fairdx.data.phantom import PhantomSettings
from fairdx.experiment import DataSettings, EvaluationSettings, RunSettings
from fairdx.methods.base import PretrainingConfig
from fairdx.methods.fair_diagnosis import FairDiagnosisConfig


def demo_settings(*, quick: bool, seed: int) -> RunSettings:
    """Returns the defaults of Fair Diagnosis on the phantom.

    Args:
        quick: Fewer images and epochs and plainer findings, to be done in a minute; figures are rough.
        seed: Seed of weights, order and bootstrap.
    """
    if not quick:
        return RunSettings(method=FairDiagnosisConfig(), seed=seed)
    phantom = PhantomSettings(train=1536, validation=512, test=2000, conspicuity=0.4)
    return RunSettings(
        method=FairDiagnosisConfig(pretraining=PretrainingConfig(epochs=3, batch_size=64), epochs=3, batch_size=64),
        data=DataSettings(phantom=phantom),
        evaluation=EvaluationSettings(true_effect_patients=1000),
        seed=seed,
    )
