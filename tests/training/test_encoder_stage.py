"""Packs that need the encoders of a seed at once share the work, a modality each."""

import json

import torch

from mcutune.training.encoder_stage import encoder_key, encoder_outputs, encoder_weights, train_encoder
from mcutune.training.loop import _Shift
from tests.training.fold import NAMES, fold, pack_of


class Beside:
    """A coordinator with another pack that trains the first modality, and brings it when this one has nothing to do."""

    def __init__(self, resident, shape, search_seed):
        self.resident, self.shape, self.search_seed = resident, shape, search_seed
        self.brought, self.asked = {}, []
        self.theirs = encoder_key(resident, shape, search_seed, 0, 0)

    def encoder(self, key, pack):
        self.asked.append(key)
        if key in self.brought:
            return self.brought[key]
        if key == self.theirs:
            if len(self.brought) == 2:
                self.brought[key] = train_encoder(self.resident, self.shape, self.search_seed, 0, 0)
            return "wait"
        return "train"

    def put_encoder(self, key, files):
        assert key != self.theirs
        self.brought[key] = files


def test_what_another_pack_trains_is_waited_for_last():
    pack = pack_of(fold())
    client = Beside(pack.resident, pack.shape, pack.start.search_seed)
    shift = _Shift.__new__(_Shift)
    shift.client, shift.start, shift.name, shift.pack, shift.encoders = client, pack.start, "p", pack, {}
    shift.heartbeat = None
    entries = shift._encoder_entries(0)
    assert client.asked.count(client.theirs) >= 2 and len(client.brought) == 3
    alone = [train_encoder(pack.resident, pack.shape, pack.start.search_seed, 0, m) for m in range(3)]
    assert all(
        torch.equal(a, b) for a, b in zip(encoder_outputs(entries, "cpu"), encoder_outputs(alone, "cpu"), strict=True)
    )
    asked = len(client.asked)
    assert shift._encoder_entries(0) is entries and len(client.asked) == asked  # not asked again


def test_a_key_is_of_one_modality_and_seed():
    pack = pack_of(fold())
    keys = {encoder_key(pack.resident, pack.shape, 7, seed, m) for seed in (0, 1) for m in range(3)}
    assert len(keys) == 6


def test_an_entry_holds_its_own_modality():
    pack = pack_of(fold())
    for m, name in enumerate(NAMES):
        entry = train_encoder(pack.resident, pack.shape, 7, 0, m)
        assert all(key.startswith(f"{name}.") for key in encoder_weights([entry]))
        assert encoder_outputs([entry], "cpu")[0].shape == (len(pack.resident.own), pack.shape.encoder_width)


def test_as_many_epochs_as_the_best_give_the_same_encoder_without_validation():
    """What --refit trains for: the schedule's first epochs, the last of them kept, whatever validation says."""
    pack = pack_of(fold(gaps=True), {"encoder_epochs": 5, "encoder_learning_rate": 0.05})
    for m in range(3):
        chosen = train_encoder(pack.resident, pack.shape, 7, 0, m)
        epoch = json.loads(chosen["encoder.json"])["epoch"]
        assert 1 <= epoch <= 5
        again = train_encoder(pack.resident, pack.shape, 7, 0, m, epochs=epoch)
        assert again == chosen
        short = train_encoder(pack.resident, pack.shape, 7, 0, m, epochs=epoch + 1 if epoch < 5 else 1)
        assert short["encoder.safetensors"] != chosen["encoder.safetensors"]
