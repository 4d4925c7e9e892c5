"""Our adversarial step, one pass through the frozen model for both players, against the naive one with two.

    python benchmarks/step.py

Public re-implementations mask and encode a batch once for the discriminator and once more for the generator.
Here the discriminator learns on the generator's own pass, detached. Same networks, losses and optimizers; the
naive discriminator's pass records no gradients, as a careful author would write it.
"""

import argparse
import time
from statistics import median

import torch
from torch.optim import AdamW

from fairdx.data.base import Batch
from fairdx.methods.base import Spec
from fairdx.methods.fair_diagnosis import FairDiagnosis, FairDiagnosisConfig
from fairdx.methods.masking import Masked
from fairdx.methods.pretraining import PretrainingConfig, pretraining

BATCH = 128


def seconds(*, shared: bool, steps: int) -> float:
    """Seconds of `steps` adversarial steps, with one forward pass or with one for each player."""
    config = FairDiagnosisConfig(**FairDiagnosis.presets["adversarial"], discriminator_updates=1)
    spec = Spec(1, 64, 2, 2)
    method = FairDiagnosis.build(config, spec, pretraining(PretrainingConfig(), spec, seed=0)[0], seed=0)
    for module in (method.model, method.mask_generator, method.discriminator):
        module.to(memory_format=torch.channels_last)
    method.model.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(BATCH, 1, 64, 64, generator=generator).to(memory_format=torch.channels_last)
    code = torch.arange(BATCH)
    batch = Batch(image, code % 2, code // 2 % 2, code)
    d, g = (AdamW(m.parameters(), 1e-3, fused=True) for m in (method.discriminator, method.mask_generator))
    start = time.perf_counter()
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(shared):
                masked = method.forward(batch)
            detached = Masked(*(tensor.detach() for tensor in masked))
            loss = method.discriminator_loss(batch, detached)["total"]
        d.zero_grad()
        loss.backward()
        d.step()
        with torch.autocast("cpu", torch.bfloat16):
            if not shared:
                masked = method.forward(batch)
            loss = method.generator_loss(batch, masked)["total"]
        g.zero_grad()
        loss.backward()
        g.step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds(shared=True, steps=2)  # warm up
    pairs = [
        (seconds(shared=False, steps=options.steps), seconds(shared=True, steps=options.steps))
        for _ in range(options.rounds)
    ]
    naive, ours = (median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(f"two passes {naive / options.steps:.3f} s a step, one pass {ours / options.steps:.3f} s (medians)")
    print(f"speed-up {naive / ours:.2f}; pair by pair {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
