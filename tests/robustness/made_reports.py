"""Reports made up for tests of the page: any number of modalities and folds, classes or values, hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mcutune.domain.combination import Modalities
from mcutune.robustness.statistics import ALL_PATTERNS

Entry = dict[str, Any]

HASH = "ab" * 32
INTERVAL = "t over groups (jackknife)"
RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
SAMPLE = Path(__file__).with_name("sample_report.json")

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    "\"'><img src=x onerror=alert(3)>",
    "' onmouseover='alert(4)",
    "javascript:alert(5)",
    "data:text/html,<script>alert(6)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;&#60;script&#62;",
    "]]><!-- --!> <![CDATA[",
    "\u202egnp.exe\u202c\u2066x\u2069\u200f",
    "\x00\x07\x1b[31m\x7f\x85\u2028\u2029\ufeff",
    "\ud800 lonely",
    "$\\frac{1}{0}$ $",
    "مرحبا 12 שלום",
    "z" * 5000,
)


def sample() -> Entry:
    report: Entry = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return report


def hostile(report: Entry, bad: str) -> Entry:
    """The report with `bad` in every text that may be anything; keys, hashes and words of the schema stay."""
    fixed = {"metric", "interval", "hash", "table_hash", "sha256", "kind", "role", "task", "split", "test", "protocol"}
    fixed |= {"name_of_summary"}

    def spoiled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return {name: spoiled(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [spoiled(part, key) for part in value]
        return f"{value}{bad}" if isinstance(value, str) and key not in fixed else value

    made = {key: spoiled(part, key) for key, part in report.items()}
    for one in made["protocols"]:
        one["id"] = one["id"].removesuffix(bad)
    made["dpft"] = [{**one, "combinations": [f"{label}{bad}" for label in of["combinations"]]}
                    for one, of in zip(made["dpft"], report["dpft"], strict=True)]  # fmt: skip
    made["models"][0]["winners"][0]["configuration"][bad] = {bad: [bad]}
    made["data"]["labels"] = {"map": {bad: bad}, "dropped": {bad: 3}, "coverage": 0.5}
    made["data"]["excluded"] = [{"protocol": bad, "scenario": bad, "rows": 1, "reason": bad, "examples": [bad]}]
    made["provenance"]["versions"][bad] = bad
    made["provenance"]["evidence"]["files"][bad] = HASH
    return made


def made_report(
    modalities: int = 6, *, folds: int = 15, seeds: int = 3, epochs: int = 40, values: bool = False, groups: int = 15
) -> Entry:
    """A report that fits the schema, with a reference, of two protocols; numbers as a model might have them."""
    names = Modalities(("bvp", "eda", "temp", "acc", "resp", "ecg", "emg", "eeg", "gaze", "voice")[:modalities])
    random = np.random.default_rng(modalities)
    metrics = ("acc2", "f1_nonzero", "mae", "pearson") if values else ("wa", "ua", "f1")
    models = ("wesad-run", "wesad-run:0")
    worth = random.uniform(0.05, 0.4, modalities)
    skill = {label: sum(worth[names.names.index(part)] for part in label.split("+")) for label in names.labels}
    best = max(skill.values())
    score = {label: 0.35 + 0.45 * (value / best) ** 0.6 for label, value in skill.items()}
    rest = [
        _protocol("fixed", "The same modalities missing in every row", names, groups),
        _protocol("random", "Modalities missing at random, row by row", names, groups),
    ]
    measurements, comparisons = [], []
    for model, less in zip(models, (0.0, 0.004), strict=True):
        for label in names.labels:
            for metric in metrics:
                value = score[label] - less + random.normal(0, 0.004)
                at = _at("fixed", label, "fixed", metric)
                measurements.append(_measurement(at, model, _scored(metric, value), groups, seeds, folds))
                if model == models[0]:
                    comparisons.append(_comparison(at, models, random, groups, len(score)))
        for rate in RATES:
            for metric in metrics:
                at = _at("random", None, f"rate={rate:g}", metric)
                value = _scored(metric, max(score.values()) - 0.3 * rate**1.5 - less)
                measurements.append(_measurement(at, model, value, groups, seeds, folds))
    return {
        "schema": 2,
        "title": f"wesad-run on wesad: {', '.join(one['id'] for one in rest)}",
        "provenance": {
            "run": "wesad-run",
            "selection": "best",
            "created": "2026-11-24T10:20:00Z",
            "evidence": {"folder": "evidence-3f1c9a0b72de", "files": {"rows-wesad.parquet": HASH}},
            "statistics": {"confidence": 0.95, "resamples": 4000, "seed": 20250711},
            "versions": {"mcutune": "0.1.0", "numpy": "2.4.6"},
        },
        "models": [_model(model, n, names, folds, seeds) for n, model in enumerate(models)],
        "data": _data(names, values, groups),
        "targets": [],
        "protocols": rest,
        "measurements": measurements,
        "summaries": _summaries(measurements, metrics, models, len(names.labels)),
        "comparisons": comparisons,
        "mean_differences": [],
        "degradation": _degradation(measurements, metrics, models, modalities),
        "cross_dataset": [],
        "checks": [{"name": "predictions are finite", "passed": True, "detail": "1,161,510 logits"}],
        "openings": {
            "count": 1,
            "log": [
                {"opening": 1, "time": "2026-11-24T10:20:00Z", "selection": "best", "tables": ["wesad"],
                 "protocols": ["fixed", "random"]}
            ],
        },
        "summary": [
            "With every modality present wesad-run reaches UA 0.800 [0.770, 0.830] on 2,340 test rows of 15 subjects.",
            "It is weakest with only temp: UA 0.430 [0.400, 0.460], 0.370 below the complete input.",
            "Do not rely on it where no more is left than only temp, only acc, nor temp+acc (over 0.10 lost).",
        ],
        "answers": [],
        "warnings": ["wesad has 15 subjects: intervals are by a small-sample method."],
        "search": {
            "space": {"name": "ranks", "hash": HASH, "dimensions": [{"key": "rank", "range": "1, 2, 4, 8, 16"}]},
            "metric": "mae" if values else "ua",
            "objective": "mean",
            "folds": [
                {"fold": str(fold), "trials": {"finished": 21, "pruned": 42, "failed": 1}, "winner": 12 + fold,
                 "winner_score": 0.671, "trial0_score": 0.668}
                for fold in range(folds)
            ],
        },
        "dpft": [_dpft(models[0], fold, seed, names, epochs) for fold in range(folds) for seed in range(seeds)],
        "published": [],
        "selection_gap": [],
    }  # fmt: skip


def _at(protocol: str, combination: str | None, scenario: str, metric: str) -> Entry:
    return {"protocol": protocol, "dataset": "wesad", "split": "test", "combination": combination,
            "scenario": scenario, "metric": metric}  # fmt: skip


def _scored(metric: str, value: float) -> float:
    return round(1.6 - value if metric == "mae" else value, 6)


def _numbers(value: float, groups: int) -> Entry:
    if groups < 8:
        return {"value": value, "low": None, "high": None, "interval": "none: fewer than 8 groups"}
    return {"value": value, "low": round(value - 0.031, 6), "high": round(value + 0.027, 6), "interval": INTERVAL}


def _measurement(at: Entry, model: str, value: float, groups: int, seeds: int, folds: int) -> Entry:
    spread = {"seeds": seeds, "seeds_sd": 0.004 if seeds > 1 else None, "folds": folds,
              "folds_sd": 0.02 if folds > 1 else None}  # fmt: skip
    return {**at, "model": model, **_numbers(value, groups), "n": 2340, "groups": groups, **spread}


def _comparison(at: Entry, models: tuple[str, ...], random: np.random.Generator, groups: int, family: int) -> Entry:
    difference = round(float(random.normal(0.004, 0.006)), 6)
    p = float(min(1.0, abs(random.normal(0, 0.2)) if difference < 0.01 else 0.0004))
    return {**at, "model": models[0], "reference": models[1], "difference": difference,
            "low": None if groups < 8 else round(difference - 0.009, 6),
            "high": None if groups < 8 else round(difference + 0.009, 6),
            "interval": "none: fewer than 8 groups" if groups < 8 else INTERVAL, "test": ALL_PATTERNS,
            "p": p, "p_holm": min(1.0, p * family), "family": family, "detectable": 0.0121, "n": 2340,
            "groups": groups}  # fmt: skip


def _model(name: str, n: int, names: Modalities, folds: int, seeds: int) -> Entry:
    configuration = {"encoder": "frozen", "rank": 4 if n else 8, "beta": 0.001, "static": None}
    winners = [
        {"fold": str(fold), "trial": 0 if n else 12 + fold, "score": 0.67, "scores": dict.fromkeys(names.labels, 0.6),
         "configuration": configuration,
         "checkpoints": [{"seed": seed, "sha256": HASH, "best_epoch": 17} for seed in range(seeds)]}
        for fold in range(folds)
    ]  # fmt: skip
    return {"name": name, "role": "reference" if n else "subject", "comparator": None, "winners": winners}


def _data(names: Modalities, values: bool, groups: int) -> Entry:
    classes = [] if values else [{"name": name, "rows": 780} for name in ("neutral", "stress", "amusement")]
    return {
        "table": "wesad", "hash": HASH, "task": "regression" if values else "classification", "rows": 2500,
        "measured": 2340, "groups": groups, "group": "subject", "classes": classes,
        "modalities": [{"name": name, "dim": 12} for name in names.names], "normalisation": "group", "unlabelled": 160,
        "incomplete": 0, "excluded": [], "test_features_normalise": True, "labels": None,
    }  # fmt: skip


def _protocol(kind: str, title: str, names: Modalities, groups: int) -> Entry:
    scenarios = ["fixed"] if kind == "fixed" else [f"rate={rate:g}" for rate in RATES]
    histogram = {label: 2340 + (0 if kind == "fixed" else n) for n, label in enumerate(names.labels)}
    return {
        "id": kind, "version": 1, "kind": kind, "title": title, "hash": HASH, "citation": "Somebody (2021).",
        "notes": ["One model serves all."], "cells": 21,
        "fingerprint": {
            "hash": HASH, "seed": None if kind == "fixed" else 7, "masks": 1 if kind == "fixed" else 5,
            "datasets": [
                {"dataset": "wesad", "table_hash": HASH, "rows": 2340,
                 "scenarios": [
                     {"scenario": one, "rate": None, "realised": 0.4, "capped": False, "histogram": histogram,
                      "nothing": 0, "missing": dict.fromkeys(names.names, 0.4)}
                     for one in scenarios
                 ]}
            ],
        },
    }  # fmt: skip


def _summaries(
    measurements: list[Entry], metrics: tuple[str, ...], models: tuple[str, ...], count: int
) -> list[Entry]:  # fmt: skip
    made = []
    for model in models:
        for metric in metrics:
            mine = [m for m in measurements if (m["protocol"], m["model"], m["metric"]) == ("fixed", model, metric)]
            if not mine:
                continue
            worst = (max if metric == "mae" else min)(mine, key=lambda one: float(one["value"]))
            mean = float(np.mean([one["value"] for one in mine]))
            for name, value in (("mean_all", mean), ("worst", worst["value"])):
                which = worst["combination"] if name == "worst" else None
                made.append(
                    {**_at("fixed", None, "fixed", metric), "name": name, "over": count, "which": which, "model": model,
                     **_numbers(value, worst["groups"]), "n": 2340, "groups": worst["groups"]}
                )  # fmt: skip
                del made[-1]["combination"]
    return made


def _degradation(
    measurements: list[Entry], metrics: tuple[str, ...], models: tuple[str, ...], modalities: int
) -> list[Entry]:  # fmt: skip
    cap = (modalities - 1) / modalities
    made = []
    for model in models:
        for metric in metrics:
            mine = [m for m in measurements if (m["protocol"], m["model"], m["metric"]) == ("random", model, metric)]
            points = [
                {"scenario": one["scenario"], "rate": rate, "realised": min(rate, cap), "capped": rate > cap,
                 "value": one["value"], "low": one["low"], "high": one["high"]}
                for rate, one in zip(RATES, mine, strict=True)
            ]  # fmt: skip
            of = {"protocol": "random", "dataset": "wesad", "metric": metric, "model": model}
            made.append({**of, "axis": "missing rate", "series": None, "points": points})
    return made


def _dpft(model: str, fold: int, seed: int, names: Modalities, epochs: int) -> Entry:
    random = np.random.default_rng([fold, seed])
    count = len(names.labels)
    drift = np.cumsum(random.normal(0, 0.004 / count, (epochs, count)), axis=0)
    probabilities = 1 / count + drift - drift.mean(axis=1, keepdims=True)
    height = 0.05 + 0.15 * np.arange(count) / count
    divergences = height * (1 - np.exp(-np.arange(1, epochs + 1) / 9))[:, None] + random.normal(
        0, 0.001, (epochs, count)
    )
    return {
        "model": model, "fold": str(fold), "seed": seed, "combinations": list(names.labels),
        "probabilities": probabilities.round(6).tolist(), "divergences": divergences.round(6).tolist(),
    }  # fmt: skip
