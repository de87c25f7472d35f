"""What is trained beside a run's winners, so that a report can say what they are worth: configurations and models.

Every configuration is a fold's winner with one thing changed. A word names those that are trained together, as an
ordinary search of an explicit list: RUN/compare/WORD, with a ledger of its own. Trial 0 there is the winner itself,
trained again. What a report reads is RUN/compare/WORD/models.json (robustness/compared.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcutune.data.views import FoldData
from mcutune.domain.combination import Modalities
from mcutune.domain.missing import shares_at_rate
from mcutune.domain.objective import Objective
from mcutune.domain.trial import LaneId, State
from mcutune.errors import BadInput
from mcutune.files import read_json, read_sealed, sealed, whole, write_json
from mcutune.search.artefacts import checkpoint_folder
from mcutune.search.canonical import ledger_hash
from mcutune.search.ledger import read_ledger
from mcutune.search.records import StudyRecord, TrialRecord
from mcutune.search.run_folder import BEST, MANIFEST, Plan
from mcutune.search.space import Parameter, Space

FOLDER, MODELS, SCHEMA = "compare", "models.json", 1
MOST_SPECIALISTS = 4  # modalities: 15 specialists; beyond, one a single modality and one for all of them
WINNER = "winner"  # the key of trial 0

_QUESTIONS = {
    "comparators": "Are the winners better than simpler models, and what of them does it?",
    "rate_shift": "What does it cost to train at another missing rate than the one met?",
    "incomplete_training": "What does it cost if training rows are incomplete themselves?",
    "epochs": "What would a score have been, had the epoch been chosen on test?",
}
WORDS = tuple(_QUESTIONS)


@dataclass(frozen=True)
class Variant:
    """A configuration: what is changed of each fold's winner."""

    key: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model of a report. parts: label of a combination, or None for all of them, to the key of its variant.

    how: `single`; `specialists`, of which each predicts its combination; `late_fusion`, the mean of those of the single
    modalities that are present. rate: what it was trained at, where that is the question.
    """

    key: str
    title: str
    parts: dict[str | None, str]
    how: str = "single"
    rate: float | None = None


@dataclass(frozen=True)
class Trained:
    """What one word trains, and the models that come of it. Trial k is variant k − 1; trial 0 the winner again."""

    variants: tuple[Variant, ...]
    models: tuple[Model, ...]


def trained_by(word: str, modalities: Modalities, largest_rank: int, rates: Sequence[float] = ()) -> Trained:
    """What a word of WORDS trains; rates: those of rate_shift or incomplete_training."""
    if word == "comparators":
        return _comparators(modalities, largest_rank)
    if word == "epochs":
        return _singles([("every_epoch", "every epoch kept", {"kept": "every"}, None)])
    if word == "rate_shift":
        shares = [shares_at_rate(rate, len(modalities)).tolist() for rate in rates]
        named = zip(rates, ({"static": one, "chosen_by": "static"} for one in shares), strict=True)
        return _singles([(f"trained_at_{rate:g}", f"trained at missing rate {rate:g}", c, rate) for rate, c in named])
    return _singles(
        [
            (f"training_missing_{rate:g}", f"{rate:g} of the training rows' modalities missing", changed, rate)
            for rate, changed in ((rate, {"training_missing": rate}) for rate in rates)
        ]
    )


def _singles(of: Sequence[tuple[str, str, dict[str, Any], float | None]]) -> Trained:
    return Trained(
        tuple(Variant(key, changes) for key, _, changes, _ in of),
        tuple(Model(key, title, {None: key}, rate=rate) for key, title, _, rate in of),
    )


def _comparators(modalities: Modalities, largest_rank: int) -> Trained:
    labels = modalities.labels
    changed = [
        ("shared_only", "shared adapters only", {"fusion": "common", "beta": 0.0, "sensitivity": 0.0}, None),
        ("complete_only", "trained on complete rows only", _only(labels[-1], labels), None),
        ("without_dpft", "without DPFT", {"sensitivity": 0.0}, None),
        ("without_orthogonality", "without orthogonality", {"beta": 0.0}, None),
        ("without_weight", "without the weight", {"fusion": "sum"}, None),
        ("smallest_rank", "rank 1", {"rank": 1}, None),
        ("largest_rank", f"rank {largest_rank}", {"rank": largest_rank}, None),
    ]
    plain = _singles(changed)
    few = len(modalities) <= MOST_SPECIALISTS
    special = [label for label in labels if few or label in modalities.names]
    variants = [Variant(f"specialist_{label}", _only(label, labels)) for label in special]
    key = {label: f"specialist_{label}" for label in special}
    single: dict[str | None, str] = {name: key[name] for name in modalities.names}
    models = [Model("late_fusion", "late fusion of unimodal models", single, "late_fusion")]
    if few:
        every: dict[str | None, str] = {label: key[label] for label in labels}
        models.append(Model("specialists", "a specialist a combination", every, "specialists"))
    return Trained((*plain.variants, *variants), (*plain.models, *models))


def _only(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """Trained on one combination alone, which chooses the epoch too."""
    return {"static": [float(one == label) for one in labels], "chosen_by": "static"}


@dataclass(frozen=True)
class Origin:
    """A finished run as it is compared: its winners' configurations by fold, and how it was searched."""

    folder: Path
    best: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def winners(self) -> dict[str, list[str]]:
        """SHA-256 of the winners' checkpoints by fold: what models.json belongs to."""
        return {one["fold"]: [c["sha256"] for c in one["checkpoints"]] for one in self.best["best"]}

    @property
    def padded_rank(self) -> int:
        """The largest rank of the run, which bounds padding: only at the same one are bits the same."""
        space = self.manifest["space"]
        found = [space["default"]["rank"], *(one.get("rank", 0) for one in space["configurations"])]
        if "rank" in space["parameters"]:
            rank = Parameter.from_json("rank", space["parameters"]["rank"])
            found += rank.values or [int(rank.high)]
        return int(max(found))


def origin(folder: Path) -> Origin:
    """Raises BadInput where the run has not finished, or a fold has no winner."""
    if not (folder / BEST).exists():
        raise BadInput(f"run {folder.name} has not finished", hint="the same `mcutune search` continues it")
    found = Origin(folder, read_sealed(folder / BEST), read_sealed(folder / MANIFEST))
    lacking = sorted(set(found.manifest["folds"]) - set(found.winners))
    if lacking:
        raise BadInput(f"run {folder.name} has no winner in fold {lacking[0]}", hint="there is nothing to compare")
    return found


def plan_of(
    of: Origin, word: str, trained: Trained, fold_data: Callable[[str], FoldData], *, threads: int, driver: int
) -> Plan:
    """The search of a word's configurations. Raises BadInput where its folder was begun beside other winners."""
    searched = of.manifest["space"]
    explicit = tuple(one.changes for one in trained.variants)
    space = Space(
        name=word, question=_QUESTIONS[word], cost="", parameters=(), explicit=explicit, fixed={},
        trials=len(explicit) + 1, seeds=searched["seeds"], lag=len(explicit) + 1, sampler="random",
        objective=Objective.parse(searched["objective"]), metric=searched["metric"],
        combinations=tuple(searched["combinations"]), rungs=None, budget=None, data=None,
        search_seed=searched["search_seed"], text="", padded_rank=of.padded_rank,
        own={one["fold"]: one["configuration"] for one in of.best["best"]},
    )  # fmt: skip
    text = f"# What `mcutune compare {of.folder.name} --with {word}` trains; made from the winners of the run.\n"
    folder = of.folder / FOLDER / word
    plan = Plan(
        folder=folder,
        space=replace(space, text=text + json.dumps(space.canonical(), indent=1) + "\n"),
        folds=tuple(of.manifest["folds"]),
        fold_data=fold_data,
        data=of.best["data"]["table"],
        threads=threads,
        driver=driver,
        facts={"normalisation": of.manifest["normalisation"]},
        label=f"{of.folder.name}-{word}",
    )
    if (folder / MANIFEST).exists() and read_sealed(folder / MANIFEST)["space_hash"] != plan.space.hash:
        raise BadInput(f"{folder} was trained beside other winners or rates", hint="remove that folder")
    return plan


def write_models(of: Origin, plan: Plan, trained: Trained) -> dict[str, Any]:
    """Write what a finished word has made for a report, with the hash of every checkpoint; returns it."""
    records, _ = read_ledger(plan.folder, keep=True)
    number = {WINNER: 0} | {one.key: k for k, one in enumerate(trained.variants, 1)}
    changes = {one.key: one.changes for one in trained.variants}
    facts = {
        "schema": SCHEMA,
        "word": plan.space.name,
        "run": of.folder.name,
        "data": of.best["data"],
        "winners": of.winners,
        "ledger_hash": ledger_hash(records),
        "same_weights": all(_same_weights(of, study) for study in records.studies.values()),
        "models": [_model(one, changes, number, records.studies, plan.folder) for one in trained.models],
    }
    facts = sealed(facts)
    write_json(plan.folder / MODELS, facts)
    return facts


def _model(
    model: Model, changes: Mapping[str, dict[str, Any]], number: Mapping[str, int], studies: Mapping[str, StudyRecord],
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    failed, same, folds = "", [], []
    for fold, study in studies.items():
        parts = []
        for combination, key in model.parts.items():
            trial = study.trials[number[key]]
            while trial.repeats is not None:
                trial = study.trials[trial.repeats]
            if trial.number == 0:
                same.append(fold)
            if trial.state is not State.FINISHED:
                failed = f"{key} in fold {fold}: {trial.message or trial.state.value}"
            else:
                parts.append({"combination": combination, **_part(study, trial, folder)})
        folds.append({"fold": fold, "parts": parts})
    changed = changes[model.parts[None]] if None in model.parts else {}
    return {
        "key": model.key, "title": model.title, "how": model.how, "rate": model.rate, "changes": changed,
        "same_as_winner": same, "failed": failed or None, "folds": [] if failed else folds,
    }  # fmt: skip


def _part(study: StudyRecord, trial: TrialRecord, folder: Path) -> dict[str, Any]:
    """A trained configuration in a fold: trial, configuration, and the checkpoint of each seed."""
    seeds = []
    for lane in trial.lanes:
        assert lane.end is not None
        place = checkpoint_folder(folder, LaneId(study.row.fold, trial.number, lane.seed)).relative_to(folder)
        seeds.append({"seed": lane.seed, "folder": str(place), "sha256": lane.end.checkpoint})
    return {"trial": trial.number, "configuration": study.configuration(trial), "seeds": seeds}


def _same_weights(of: Origin, study: StudyRecord) -> bool:
    """Whether the winner, trained again, has the weights of the run's own checkpoints bit for bit."""
    own = next(one for one in of.best["best"] if one["fold"] == study.row.fold)
    again = [lane.end.weights for lane in study.trials[0].lanes if lane.end is not None]
    facts = [of.folder / checkpoint["folder"] / "checkpoint.json" for checkpoint in own["checkpoints"]]
    files = [whole(read_json(path), path)["sha256"] for path in facts]
    return again == [one["model.safetensors"] for one in files]
