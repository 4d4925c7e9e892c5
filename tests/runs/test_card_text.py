from fairdx.models.card import FrozenCard, ImageCard, ModelCard
from fairdx.runs.card_text import card_text

CARD = ModelCard(
    fairdx="1.2.3",
    created="2026-01-01T00:00:00+00:00",
    method="fair_diagnosis",
    image=ImageCard(size=64, channels=1),
    label="pneumonia",
    classes=("absent", "present"),
    attribute="sex",
    groups=("male", "female"),
    threshold=0.25,
    threshold_chosen_on="validation",
    frozen=FrozenCard(source="model.onnx", kind="onnx", weights_sha256="ab" * 32),
    data={"images": {"test": 1234}},
    metrics={
        "vanilla": {"auroc": {"value": 0.9, "low": 0.88, "high": 0.92}},
        "fair_diagnosis": {"auroc": {"value": 0.91, "low": 0.89, "high": 0.93}, "direct_effect": None},
    },
)


def test_the_card_says_what_it_is_for_with_figures_and_limits():
    text = card_text(CARD)
    assert "from a score of 0.2500 on, chosen on validation images" in text
    assert "It is not told the sex of anybody" in text
    assert "1,234 test images" in text
    row = next(line for line in text.splitlines() if line.startswith("| Area under"))
    assert "0.900" in row
    assert "0.930" in row
    assert "When not to use it" in text
    assert "Direct effect" not in text  # a figure that nobody has
    told = card_text(CARD.model_copy(update={"needs_group": True}))
    assert "has to be told the sex" in told
