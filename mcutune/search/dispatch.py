"""Which pack trains what: lanes of one fold and shape each, the lowest trial first. Decides speed, never results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mcutune.domain.trial import LaneId, LaneOrder, State, Verdict, padded_rank
from mcutune.search.packs import Packs, PackState
from mcutune.search.records import LaneRecord
from mcutune.search.sharing import MOST_PACKS, Load, fair_number
from mcutune.search.study import Live, Study

HELD = 2  # times its places a pack may hold lanes, parked ones included, before it gets trials beyond the lag
WORKING = (Verdict.CONTINUE, Verdict.FINISH)
_AHEAD = 2  # times a pack's places: how far it looks for lanes that run well beside its own
Shape = tuple[Any, ...]
Fitting = tuple[LaneId, LaneRecord, Live]


class Dispatch:
    """Hands the lanes of all studies to packs."""

    def __init__(self, studies: Mapping[str, Study], packs: Packs, max_rank: int, expected: int = 1) -> None:
        """max_rank: the largest of the space. expected: packs that were started; some may not have joined yet."""
        self._studies = studies
        self._packs = packs
        self._max_rank = max_rank
        self._expected = expected

    def choose(self) -> tuple[Study, Shape] | None:
        """Fold and shape for a pack: those with lanes that nobody holds, few packs first, then the lowest trial.

        If all lanes are held, the fold and shape of the lowest running trial, to wait there; None without any.
        """
        found = min(
            self._open(),
            key=lambda lane: (self._packs.serving(lane[0].fold, lane[1]), lane[2]),
            default=None,
        )
        if found is not None:
            return found[0], found[1]
        running = [study for study in self._studies.values() if study.record.running]
        if not running:
            return None
        return running[0], running[0].live(running[0].record.settled).shape

    def verdicts(self, state: PackState, stopped: bool) -> dict[LaneId, Verdict]:
        """What becomes of every lane that a pack holds; those that end are released."""
        found = {}
        study = self._studies[state.fold]
        for lane, held in list(state.held.items()):
            record = study.lane(lane)
            fenced = stopped or record is None or record.attempt != held.attempt
            found[lane] = Verdict.END if fenced else study.verdict(lane, held.seen)
            if found[lane] is Verdict.END:
                self._packs.release(state, lane)
        return found

    def room(self, state: PackState, places: int, *, ahead: bool) -> int:
        """How many of the pack's places would stay empty for want of trials. Lanes of other shapes count as work too:
        it is theirs to be trained before new trials begin.

        ahead: where ranks are padded to several numbers, so many trials that a pack can choose those that are alike,
        unless it has parked some.
        """
        if len(state.held) >= HELD * places:
            return 0
        study = self._studies[state.fold]
        training = sum(study.verdict(lane, held.seen) is Verdict.CONTINUE for lane, held in state.held.items())
        if training >= places:
            return 0
        alike = state.device != "cpu" or padded_rank(1, self._max_rank) == padded_rank(self._max_rank, self._max_rank)
        choice = ahead and not alike and len(state.held) == training
        return (_AHEAD if choice else 1) * places - training - sum(1 for _ in self._free(study))

    def hand_out(self, state: PackState, places: int, verdicts: Mapping[LaneId, Verdict]) -> Iterator[LaneOrder]:
        """Lanes of the pack's fold and shape that nobody holds, none that it was just told to end.

        As many as those that go on leave of its places (a lane that was just told to park or end has left its own), or
        fewer where others would not run beside them, or another pack should have them.
        One whose packs were lost again and again is handed out with no other, and before all others: then the next loss
        is its own doing, or its next epoch clears it.
        """
        study = self._studies[state.fold]
        working = [study.lane(lane) for lane, verdict in verdicts.items() if verdict in WORKING]
        if any(record is not None and record.suspect for record in working):
            return
        free = places - sum(verdict is Verdict.CONTINUE for verdict in verdicts.values())
        if free <= 0:
            return
        fitting = [one for one in self._free(study) if one[0] not in verdicts and one[2].shape == state.shape]
        suspects = [one for one in fitting if one[1].suspect]
        chosen = suspects[:1] if suspects and not working else [one for one in fitting if not one[1].suspect]
        if state.device == "cpu" and not suspects:
            chosen = self._beside(state, study, chosen, free, places)
        for lane, record, live in chosen[:free]:
            self._packs.hold(state, lane, record.attempt)
            yield LaneOrder(lane, record.attempt, live.configuration.model_dump(), live.configuration.epochs)

    def _beside(self, state: PackState, study: Study, fitting: list[Fitting], free: int, places: int) -> list[Fitting]:
        """Of the lanes that a pack on a CPU could train next those that it should.

        Those whose ranks are padded like those it trains: others would run after its own, not beside them, and another
        pack may want them. Where it trains nothing, the largest, which take longest: packs end together if what is
        short comes last. None from further ahead than _AHEAD times its places: others may wait for the lowest trial.
        Of several packs none takes more than its share of the work, unless the others have no places for the rest.
        """
        if not fitting:
            return []
        near = [(one, self._load(one[2])) for one in fitting[: _AHEAD * places]]
        mine = self._loads(state, study)
        here, there = {load.padded for load in mine}, {load.padded for _, load in near}
        kinds = here & there or {max(there)}
        wanted = [one for one, load in near if load.padded in kinds]
        alike = not here or kinds <= here
        others, coming = self._beside_whom(state)
        if not others and not coming:
            return fitting if len(fitting) <= free else wanted if alike else []
        theirs = [self._loads(other, study) for other in others]
        elsewhere = coming * places + sum(max(0, o.capacity - len(t)) for o, t in zip(others, theirs, strict=True))
        least = max(0, len(fitting) - elsewhere)
        if not alike and coming:  # they may begin with these
            return wanted[:least]
        loads = [load for _, load in near if load.padded in kinds]
        rest = [load for _, load in near if load.padded not in kinds]
        number = fair_number(mine, theirs, loads, rest, 1 + len(others) + coming)
        return wanted[: max(number, least)]

    def _loads(self, state: PackState, study: Study) -> list[Load]:
        """What a pack trains."""
        going = [
            (lane, held) for lane, held in state.held.items() if study.verdict(lane, held.seen) is Verdict.CONTINUE
        ]
        return [self._load(study.live(lane.trial), held.seen) for lane, held in going]

    def _load(self, live: Live, seen: int = 0) -> Load:
        return Load(self._padded(live), live.configuration.encoder, live.configuration.epochs - seen)

    def _beside_whom(self, state: PackState) -> tuple[list[PackState], int]:
        """The other packs that share the work of this fold and shape, and how many that are still to come will.

        Nobody where there are many packs. None to come where other folds or shapes wait for them.
        """
        if len(self._packs) > MOST_PACKS:
            return [], 0
        others = [one for one in self._packs.at(state.fold, state.shape) if one is not state]
        missing = self._expected - len(self._packs)
        if missing <= 0 or self._packs.settled:
            return others, 0
        elsewhere = any((study.fold, shape) != (state.fold, state.shape) for study, shape, _ in self._open())
        return others, 0 if elsewhere else missing

    def _padded(self, live: Live) -> int:
        return padded_rank(live.configuration.rank, self._max_rank)

    def training(self, state: PackState) -> set[LaneId]:
        """The lanes that a pack trains, or whose checkpoint it makes: one of them may be why it is lost."""
        study = self._studies[state.fold]
        return {lane for lane, held in state.held.items() if study.verdict(lane, held.seen) in WORKING}

    def needed_elsewhere(self, state: PackState) -> bool:
        """Whether a pack that can do nothing now should give its parked lanes back and join anew.

        Never while there are lanes for it here. With nothing parked: if there are lanes of another fold or shape. Else
        only if they have no pack at all: what the parked lanes wait for may be among them.
        """
        others = {(study.fold, shape) for study, shape, _ in self._open()}
        if (state.fold, state.shape) in others:
            return False
        return bool(others) if not state.held else any(not self._packs.serving(*other) for other in others)

    def _open(self) -> Iterator[tuple[Study, Shape, int]]:
        """Study, shape and trial of every lane that nobody holds."""
        for study in self._studies.values():
            for lane, _, live in self._free(study):
                yield study, live.shape, lane.trial

    def _free(self, study: Study) -> Iterator[Fitting]:
        """The lanes of a study that are to be trained and that nobody holds, lowest trial first."""
        for lane in self._packs.unheld(study.fold):
            record = study.lane(lane)
            if record is None or record.state is not State.RUNNING:
                self._packs.forget(lane)
            else:
                yield lane, record, study.live(lane.trial)
