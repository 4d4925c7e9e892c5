"""Reporting checklists as data: their items, short titles in our words, and what answers each.

The official forms and their full wording are those of the statements; these titles only help to find an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass

OPEN = "To be filled by the authors."


@dataclass(frozen=True)
class Item:
    """An item of a checklist.

    Attributes:
        number: As published.
        title: In our words.
        facts: Keys of the facts that answer it, or part of it; none where only the authors can.
    """

    number: str
    title: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Checklist:
    """A reporting checklist.

    Attributes:
        title: Its name and year.
        source: Where its full wording is.
        items: In their order.
    """

    title: str
    source: str
    items: tuple[Item, ...]


def _items(text: str) -> tuple[Item, ...]:
    """Lines `number | title | keys`."""
    rows = [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]
    return tuple(Item(number, title, tuple(keys.split())) for number, title, keys in rows)


STARD_AI = _items("""
1   | Named as a study of the accuracy of an AI test, with a measure of accuracy |
2   | Structured abstract |
3   | Background, intended use, place in the workflow |
4   | Objectives and hypotheses |
5   | Prospective or retrospective |
6   | Approval by an ethics committee |
7   | Who and which data were eligible, in order | left_out
8   | How eligible people were found |
9   | Where and when |
10  | Consecutive, random or convenience series |
11  | Source of the data, and why they were collected | data_source
12  | Who annotated the data, and how |
13  | Devices and software, with versions | software
14  | How images were acquired and prepared | preparation
15a | The AI test, in enough detail to repeat it | model
15b | How the test was developed: training, validation, testing, sizes | partitions training
15c | Cut-offs of the test, and whether they were set before | threshold
15d | Who is to use the test, with what expertise |
16a | Reference standard, in enough detail to repeat it | label
16b | Why this reference standard |
16c | Cut-offs of the reference standard |
17a | Whether readers of the test knew the reference standard |
17b | Whether assessors of the reference standard knew the test |
18  | Statistical methods | statistics
19  | How indeterminate results were handled |
20  | How missing data were handled | left_out missing
21  | Analyses of variability, planned or exploratory | subgroups
22  | Intended sample size, and why | power
23  | How errors, bias and fairness were assessed | fairness
24  | Flow of participants, as a diagram | sizes left_out
25  | Characteristics of training, validation and test sets | groups partitions
26a | Severity of disease among the diseased |
26b | Other diagnoses among those without it |
27  | Time and treatment between test and reference standard |
28  | Whether the test set is like those the test is meant for |
29  | How an external test set differs from the others |
30  | Test against reference standard, cross-tabulated | crosstab
31  | Accuracy with its precision | performance
32  | Adverse events |
33  | Limitations: bias, uncertainty, generalisability | limits
34  | Implications for practice |
35  | Ethics and fairness of its use | findings
36  | Registration |
37  | Where the protocol is |
38  | Funding, and the role of funders |
39  | Commercial interests |
40a | Availability of data and code | repeat
40b | Whether outputs are stored and can be audited | repeat
""")

TRIPOD_AI = _items("""
1   | Title: development or evaluation, people, outcome |
2   | Abstract, by its own checklist |
3a  | Context, rationale, existing models |
3b  | Target population, purpose, users |
3c  | Known health inequalities between groups |
4   | Objectives |
5a  | Sources of data, and how representative they are | data_source
5b  | Dates |
6a  | Setting, number and place of centres |
6b  | Eligibility | left_out
6c  | Treatments |
7   | Preparation and checks of the data, alike in all groups | preparation
8a  | Outcome: definition, timing, alike in all groups | label
8b  | Who assessed the outcome |
8c  | Blinding of the outcome |
9a  | Choice of predictors |
9b  | Definition of predictors | preparation
9c  | Who assessed predictors |
10  | Sample size, and why it suffices | power
11  | Missing data | left_out missing
12a | How data were divided | partitions
12b | How predictors were handled | preparation
12c | Type of model, building, tuning, internal validation | model training
12d | Differences between clusters such as hospitals | clusters
12e | Measures and plots of performance | measures statistics
12f | Updating of the model | mitigation
12g | How predictions were calculated | repeat
13  | Class imbalance |
14  | Approaches to fairness, and why | fairness mitigation
15  | Output of the model, classes and thresholds | threshold
16  | How development and evaluation data differ |
17  | Ethics committee and consent |
18a | Funding |
18b | Conflicts of interest |
18c | Protocol |
18d | Registration |
18e | Data sharing |
18f | Code sharing | repeat
19  | Involvement of patients and public |
20a | Flow of participants, with and without the outcome | sizes left_out
20b | Characteristics, overall and by group | groups
20c | Comparison with the development data |
21  | Participants and events in each analysis | partitions sizes
22  | The full model, for others to use | model
23a | Performance with intervals, also of subgroups | performance subgroups
23b | Differences in performance between clusters |
24  | Results of updating | mitigated
25  | Interpretation, with fairness | findings
26  | Limitations | limits
27a | Poor or missing input in use |
27b | What users must do and know |
27c | Next steps, applicability |
""")

CLAIM = _items("""
1   | Title names AI and its kind |
2   | Structured abstract |
3   | Background, intended use, clinical role |
4   | Aims and hypotheses |
5   | Prospective or retrospective |
6   | Goal of the study |
7   | Sources of data | data_source
8   | Inclusion and exclusion | left_out
9   | Preparation of images | preparation
10  | Selection of subsets of the data |
11  | De-identification |
12  | Missing data | left_out missing
13  | Acquisition protocol |
14  | Definition of the reference standard | label
15  | Why this reference standard |
16  | Annotators and their training |
17  | How test data were annotated |
18  | Variability between and within annotators |
19  | How data were assigned to partitions | partitions
20  | At which level partitions are disjoint | disjoint
21  | Size of the test set, and why | power
22  | Architecture of the model | model
23  | Software with versions | software
24  | Initialisation of the model | initial
25  | Training, augmentation, hyperparameters | training
26  | How the final model was chosen | selection
27  | Ensembles |
28  | Measures of performance | measures
29  | Uncertainty and tests | statistics
30  | Robustness and sensitivity | sensitivity
31  | Explanations, and how they were validated |
32  | Testing on internal data | performance
33  | Testing on external data |
34  | Registration of a trial |
35  | Numbers included and excluded | sizes left_out
36  | Demographics of each partition | groups
37  | Performance in partitions and subgroups | performance subgroups
38  | Diagnostic accuracy with intervals | performance
39  | Failures, with a confusion matrix | crosstab
40  | Limitations | limits
41  | Implications for practice |
42  | Where the full protocol is |
43  | Availability of software, model and data | repeat
44  | Funding, and the role of funders |
""")

CHECKLISTS = {
    "stard-ai": Checklist("STARD-AI (2025)", "https://doi.org/10.1038/s41591-025-03953-8", STARD_AI),
    "tripod-ai": Checklist("TRIPOD+AI (2024)", "https://doi.org/10.1136/bmj-2023-078378", TRIPOD_AI),
    "claim": Checklist("CLAIM, 2024 update", "https://doi.org/10.1148/ryai.240300", CLAIM),
}
"""The checklists by name."""


def filled(checklist: Checklist, facts: Mapping[str, str]) -> str:
    """A checklist with what is known, as Markdown.

    Args:
        checklist: Which.
        facts: What is known, as sentences, by key.

    Returns:
        A table of its items. An answer is a part of what the item asks, to be checked and completed.
    """
    rows = []
    known = 0
    for item in checklist.items:
        told = [facts[key] for key in item.facts if facts.get(key)]
        known += bool(told)
        rows.append(f"| {item.number} | {item.title} | {_cell(' '.join(told) or OPEN)} |")
    head = [
        f"# {checklist.title}",
        "",
        f"Filled in part by fairdx for {known} of {len(rows)} items, from its own figures. Check each of "
        "them, complete it, and say in which section of the report it stands. Titles are short forms: the "
        f"wording that counts is at <{checklist.source}>.",
        "",
        "| Item | What | Answer |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
