"""The forerunner brings the bits that a pack would, leaves alone what another trains, and touches nothing else."""

import pytest
import torch
from safetensors.torch import load

from mcutune.training.encoder_stage import encoder_key, train_encoder
from mcutune.training.forerunner import forerun
from tests.training.fold import NAMES, fold, pack_of


class Coordinator:
    def __init__(self, start, data, cached=(), theirs=()):
        self.start, self.data, self.cached, self.theirs = start, data, cached, theirs
        self.asked, self.brought = [], {}

    def forerun(self, forerunner):
        return None if self.start is None else (self.start, (0, 1))

    def fold_data(self, fold):
        return self.data

    def encoder(self, key, pack):
        self.asked.append((key, pack))
        return {"x": b""} if key in self.cached else "wait" if key in self.theirs else "train"

    def put_encoder(self, key, files):
        self.brought[key] = files


@pytest.fixture(autouse=True)
def _as_it_was():
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(before)
    torch.set_num_threads(threads)


def test_it_brings_what_a_pack_would_train():
    data = fold(gaps=True)
    pack = pack_of(data)
    given = pack.resident, pack.shape, pack.start.search_seed
    keys = [encoder_key(*given, seed, m) for seed in (0, 1) for m in range(3)]
    client = Coordinator(pack.start, data, cached=keys[:1], theirs=keys[1:2])
    torch.set_num_threads(2)
    forerun(client, "ahead")
    assert client.asked == [(key, "ahead") for key in keys]
    assert list(client.brought) == keys[2:]
    assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
    for key, (seed, m) in zip(keys[2:], [(0, 2), (1, 0), (1, 1), (1, 2)], strict=True):
        alone = train_encoder(*given, seed, m)
        assert client.brought[key]["encoder.safetensors"] == alone["encoder.safetensors"]
        outputs = [load(files["outputs.safetensors"])[NAMES[m]] for files in (alone, client.brought[key])]
        assert torch.equal(*outputs)


def test_nothing_to_do():
    client = Coordinator(None, None)
    forerun(client, "ahead")
    assert not client.asked


def test_a_trained_encoder_needs_none_ahead():
    pack = pack_of(fold(), {"encoder": "trained"})
    client = Coordinator(pack.start, fold())
    forerun(client, "ahead")
    assert not client.asked
