"""Labels of another corpus are read by name and meaning, or refused; published numbers only where they belong."""

from __future__ import annotations

import pytest

from mcutune.errors import BadInput, Problems
from mcutune.robustness.cross import read_labels, reading_table
from mcutune.robustness.protocol import CrossDataset, load_protocol
from mcutune.robustness.published import _file, matching

SHIPPED = load_protocol("cross_dataset")
assert isinstance(SHIPPED, CrossDataset)
IEMOCAP, MSP = ["happy(+excited)", "sad", "neutral", "angry"], ["happy", "sad", "neutral", "angry"]
SIX = ["happy", "sad", "neutral", "angry", "excited", "frustrated"]


def reading(model: list[str], target: list[str], **changes: object) -> dict[str, str]:
    protocol = SHIPPED.model_copy(update=changes)
    return dict(read_labels(protocol, model, target, set(target)).map)


def test_iemocap_and_msp_read_each_other() -> None:
    assert reading(IEMOCAP, MSP) == dict(zip(MSP, IEMOCAP, strict=True))
    assert reading(MSP, IEMOCAP) == dict(zip(IEMOCAP, MSP, strict=True))


def test_several_labels_may_mean_one_class() -> None:
    found = reading(IEMOCAP, SIX, drop=["frustrated"])
    assert (found["happy"], found["excited"]) == ("happy(+excited)", "happy(+excited)")
    assert "frustrated" not in found


def test_an_equal_name_comes_before_a_meaning() -> None:
    assert reading(SIX, ["happy", "excited"]) == {"happy": "happy", "excited": "excited"}


@pytest.mark.parametrize(
    ("model", "target", "said"),
    [
        (IEMOCAP, SIX, "'frustrated' has no class of the model"),
        (SIX, ["happiness"], "may mean 'happy' or 'excited'"),
        (IEMOCAP, ["Happy"], "'Happy' has no class"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(model: list[str], target: list[str], said: str) -> None:
    with pytest.raises(Problems) as caught:
        reading(model, target)
    assert said in str(caught.value)


def test_drop_names_labels_that_exist_and_leaves_some() -> None:
    with pytest.raises(Problems, match="(?s)'furious'"):
        reading(IEMOCAP, MSP, drop=["furious"])
    with pytest.raises(BadInput, match="every label"):
        reading(IEMOCAP, ["sad"], drop=["sad"])


def test_labels_without_rows_need_no_reading() -> None:
    read = read_labels(SHIPPED, IEMOCAP, SIX, {"sad", "excited"})
    assert reading_table(read, IEMOCAP, SIX).tolist() == [-1, 1, -1, -1, 0, -1]


def test_published_numbers_appear_only_where_dataset_classes_and_metric_match() -> None:
    have = {("fixed", "wa", "audio"), ("fixed", "wa", "audio+text"), ("fixed", "wa", "mean_incomplete")}
    three = ["text", "audio", "video"]
    found = matching("IEMOCAP", 4, three, have)
    assert {one["metric"] for one in found} == {"wa"}
    assert {key for one in found for key in one["values"]} == {"audio", "audio+text", "mean_incomplete"}
    assert any("training rows among the test rows" in one["warning"] for one in found)
    assert matching("iemocap", 5, three, have) == matching("wesad", 4, three, have) == []
    assert matching("iemocap", 4, three, set()) == []


def test_means_and_rates_appear_only_where_all_modalities_match() -> None:
    have = {("fixed", "wa", "audio"), ("fixed", "wa", "mean_incomplete"), ("random", "wa", "rate=0.3")}
    found = matching("iemocap", 4, ["audio", "text", "context"], have)
    assert {name for one in found for name in one["values"]} == {"audio"}
    rates = {("random", "acc2", "rate=0.3")}
    three = ["audio", "text", "video"]
    assert matching("MOSEI", 0, three, rates) == matching("cmu-mosei", 0, three, rates) != []


def test_published_numbers_are_fractions_with_a_source_and_a_warning() -> None:
    for one in _file().numbers:
        assert one.source
        assert one.warning
        assert all(0 < value < 1 for value in one.values.values())


def test_published_means_are_those_of_their_values() -> None:
    """A slip of transcription shows here: the printed mean against the mean of the printed values."""
    checked = 0
    for one in _file().numbers:
        for name, count in (("mean_incomplete", 6), ("mean_all", 7)):
            values = [value for key, value in one.values.items() if not key.startswith(("mean", "rate"))]
            if name == "mean_incomplete" and len(values) == 7:
                del values[list(one.values).index("audio+text+video")]
            if name in one.values and len(values) == count:
                assert one.values[name] == pytest.approx(sum(values) / count, abs=6e-4)
                checked += 1
    assert checked > 40


def test_every_field_of_the_method_has_published_numbers() -> None:
    keys = {(one.dataset, one.classes, one.protocol) for one in _file().numbers}
    assert keys == {
        (dataset, classes, protocol)
        for dataset, classes in (("iemocap", 4), ("iemocap", 6), ("cmu_mosi", None), ("cmu_mosei", None))
        for protocol in ("fixed", "random")
    }
    names = [(one.method, one.dataset, one.classes, one.protocol, one.metric, one.source) for one in _file().numbers]
    assert len(names) == len(set(names))
