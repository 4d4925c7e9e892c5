"""The settings of `fairdx demo`."""

from fairdx.data.phantom import PhantomSettings
from fairdx.methods.fair_diagnosis import FairDiagnosisConfig
from fairdx.methods.pretraining import PretrainingConfig
from fairdx.runs.settings import DataSettings, EvaluationSettings, RunSettings


def demo_settings(*, quick: bool, seed: int) -> RunSettings:
    """Returns the defaults of Fair Diagnosis on the phantom.

    Args:
        quick: Fewer and smaller images, plainer findings and fewer epochs, to be done in a minute.
        seed: Seed of weights, order and bootstrap.
    """
    if not quick:
        return RunSettings(method=FairDiagnosisConfig(), seed=seed)
    phantom = PhantomSettings(size=32, train=3072, validation=1024, test=4000, conspicuity=0.45)
    return RunSettings(
        method=FairDiagnosisConfig(epochs=6, batch_size=64),
        model=PretrainingConfig(epochs=4, batch_size=64),
        data=DataSettings(phantom=phantom),
        evaluation=EvaluationSettings(true_effect_patients=1000),
        seed=seed,
    )
