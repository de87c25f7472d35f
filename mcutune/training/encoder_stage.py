"""Stage 1: train one encoder a modality, alone, on complete data; keep the best validation epoch; cache by content.

The result is a function of (table, split, normalisation, encoder settings, search seed, seed, modality, code version):
its key. Each modality has its own, so that packs that need a seed at once share the work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from mcutune.domain.task import Task, default_metric
from mcutune.files import canonical_json, sha256
from mcutune.model.encoder import DialogueEncoder, UtteranceEncoder, encode, make_encoder
from mcutune.model.noise import Place, stream
from mcutune.training.config import Configuration
from mcutune.training.resident import Resident

CODE = 2  # raised whenever this file or model/encoder.py changes what a key gives
Encoder = UtteranceEncoder | DialogueEncoder


def encoder_key(resident: Resident, configuration: Configuration, search_seed: int, seed: int, m: int) -> str:
    """The content key of the encoder of modality m and one seed: 64 hexadecimal digits."""
    settings = {k: v for k, v in configuration.model_dump().items() if k.startswith("encoder_")}
    data = resident.data
    facts = {
        "code": CODE, "settings": settings, "class_weight": configuration.class_weight, "seeds": [search_seed, seed],
        "table": data.table_hash, "split": data.split_hash, "normalisation": data.normalisation,
        "modality": [m, data.modalities[m]],
    }  # fmt: skip
    if configuration.training_missing:  # not named where nothing is hidden: such encoders are what they were before
        facts["training_missing"] = configuration.training_missing
    return sha256(canonical_json(facts))


def train_encoder(
    resident: Resident, configuration: Configuration, search_seed: int, seed: int, m: int, epochs: int | None = None
) -> dict[str, bytes]:
    """Files of the cache entry: encoder.safetensors (weights), outputs.safetensors (R^m [N, W]), encoder.json.

    epochs: train so many of the schedule's and keep the last, where no rows are held out to choose one by.
    """
    name = resident.data.modalities[m]
    encoder, reached, epoch = _train_one(resident, configuration, (search_seed, seed), m, epochs)
    weights = {f"{name}.{key}": tensor.cpu().contiguous() for key, tensor in encoder.state_dict().items()}
    metric = default_metric(resident.data.task).name
    facts = {"modality": name, "validation": reached, "metric": metric, "epoch": epoch}
    return {
        "encoder.safetensors": save(weights),
        "outputs.safetensors": save({name: _outputs(encoder, resident, m).cpu()}),
        "encoder.json": json.dumps(facts).encode(),
    }


def encoder_outputs(entries: Sequence[dict[str, bytes]], device: torch.device) -> list[Tensor]:
    """R^m [N, W] of every modality from its cache entry."""
    return [next(iter(load(entry["outputs.safetensors"]).values())).to(device) for entry in entries]


def encoder_weights(entries: Sequence[dict[str, bytes]]) -> dict[str, Tensor]:
    """The weights of every modality's encoder from its cache entry, by MODALITY.NAME."""
    return {name: tensor for entry in entries for name, tensor in load(entry["encoder.safetensors"]).items()}


def _outputs(encoder: Encoder, resident: Resident, m: int) -> Tensor:
    dialogues = torch.from_numpy(resident.dialogues).to(resident.target.device)
    return encode(encoder, resident.inputs[m], resident.presence[:, m], dialogues)


def _train_one(
    resident: Resident, c: Configuration, seeds: tuple[int, int], m: int, epochs: int | None
) -> tuple[Encoder, float, int]:
    """The encoder of modality m at its best validation epoch (or after `epochs`); the default metric there; which."""
    key = stream(*seeds, Place.ENCODER, m)
    device = resident.target.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(key.integers(2**31)))
        encoder = make_encoder(c, resident.dims[m]).to(device)
        head = nn.Sequential(nn.Dropout(c.encoder_dropout), nn.Linear(c.encoder_width, resident.outputs)).to(device)
        parameters = [*encoder.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(
            parameters, lr=c.encoder_learning_rate, weight_decay=c.encoder_weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, c.encoder_learning_rate, total_steps=c.encoder_epochs * _steps(resident, c, m) + 1
        )
        best, best_state, best_epoch = -np.inf, encoder.state_dict(), 0
        for epoch in range(1, 1 + (c.encoder_epochs if epochs is None else epochs)):
            _one_epoch(resident, c, m, key, encoder, head, optimizer, schedule)
            value = _validation(resident, m, encoder, head)
            if value > best or epochs is not None:
                best, best_epoch = value, epoch
                best_state = {k: v.clone() for k, v in encoder.state_dict().items()}
        encoder.load_state_dict(best_state)
    metric = default_metric(resident.data.task)
    return encoder, metric.signed(float(best)) if np.isfinite(best) else 0.0, best_epoch


def _rows_with(resident: Resident, rows: Any, m: int) -> Any:
    return rows[resident.data.presence[rows, m]]


def _batches(resident: Resident, c: Configuration, m: int, key: np.random.Generator) -> list[Any]:
    """Rows (utterance) or dialogue numbers (dialogue) of every step of an epoch."""
    rows = _rows_with(resident, np.concatenate([resident.training, resident.probe]), m)
    if c.encoder_kind == "utterance":
        return np.array_split(key.permutation(rows), _steps(resident, c, m))
    return np.array_split(key.permutation(np.unique(resident.dialogue_of[rows])), _steps(resident, c, m))


def _steps(resident: Resident, c: Configuration, m: int) -> int:
    rows = len(_rows_with(resident, np.concatenate([resident.training, resident.probe]), m))
    return max(1, -(-rows // c.encoder_batch))


def _one_epoch(
    resident: Resident, c: Configuration, m: int, key: np.random.Generator, encoder: Encoder, head: nn.Module,
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:  # fmt: skip
    encoder.train()
    head.train()
    learnable = torch.zeros(len(resident.target), dtype=torch.bool)
    learnable[_rows_with(resident, np.concatenate([resident.training, resident.probe]), m)] = True
    weight = torch.from_numpy(resident.class_weight).to(resident.target.device)
    for batch in _batches(resident, c, m, key):
        if not len(batch):
            continue
        rows, output = _forward(resident, m, batch, encoder, learnable)
        target = resident.target[rows]
        logits = head(output)
        if resident.data.task is Task.CLASSIFICATION:
            loss = functional.cross_entropy(logits, target, weight=weight)
        else:
            loss = functional.mse_loss(logits[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _forward(resident: Resident, m: int, batch: Any, encoder: Encoder, learnable: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a batch that may be learned from, and their R^m."""
    device = resident.target.device
    if isinstance(encoder, UtteranceEncoder):
        rows = torch.from_numpy(batch).to(device)
        return rows, encoder(resident.inputs[m][rows])
    block = torch.from_numpy(resident.dialogues[batch]).to(device)
    rows = block.clamp_min(0)
    here = (block >= 0) & resident.presence[rows, m]
    encoded = encoder(torch.where(here[..., None], resident.inputs[m][rows], 0.0), here)
    kept = here & learnable.to(device)[rows]
    return rows[kept], encoded[kept]


@torch.no_grad()
def _validation(resident: Resident, m: int, encoder: Encoder, head: nn.Module) -> float:
    """The default metric on validation rows with the modality, signed so that higher is better."""
    rows = _rows_with(resident, resident.validation, m)
    if not len(rows):
        return 0.0
    head.eval()
    if isinstance(encoder, UtteranceEncoder):
        encoder.eval()
        output = head(encoder(resident.inputs[m][torch.from_numpy(rows).to(resident.target.device)]))
    else:
        output = head(_outputs(encoder, resident, m)[torch.from_numpy(rows).to(resident.target.device)])
    classified = resident.data.task is Task.CLASSIFICATION
    predicted = (output.argmax(1) if classified else output[:, 0]).cpu().numpy()
    metric = default_metric(resident.data.task)
    truth = resident.target.cpu().numpy()[rows]
    return metric.signed(float(metric(predicted, truth, resident.outputs)))
