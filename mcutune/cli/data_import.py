"""`mcutune data import`: feature files become a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcutune.cli.options import Json, print_json
from mcutune.errors import BadInput
from mcutune.inert import inert

if TYPE_CHECKING:
    from mcutune.data.assemble import Roles
    from mcutune.data.importers import Imported

_MODES = ["train", "group", "none"]
app = typer.Typer(help="Turn feature files into a dataset.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[Path, typer.Argument(help="The file.")]
Name = Annotated[str, typer.Option(help="What the dataset will be called.")]
Modality = Annotated[
    list[str],
    typer.Option(help="A modality: NAME, or NAME=KEY where the key has another name. Once for each, in order."),
]
Label = Annotated[
    str, typer.Option(help="Key of the labels: class indices, names, or values; below 0 or missing: none.")
]
LabelNames = Annotated[str | None, typer.Option(help="Key with the names of the classes.")]
Id = Annotated[str | None, typer.Option("--id", help="Key of the row ids.")]
Dialogue = Annotated[str | None, typer.Option(help="Key of each row's dialogue.")]
Order = Annotated[str | None, typer.Option(help="Key of the position within the dialogue.")]
Speaker = Annotated[str | None, typer.Option(help="Key of the speaker or subject.")]
Fold = Annotated[str | None, typer.Option(help="Key of the outer fold; each value is one test part.")]
Split = Annotated[str | None, typer.Option(help="Key of a given split: train, validation, test.")]
Presence = Annotated[str | None, typer.Option(help="Key of the presence of modalities, [rows, modalities].")]
Group = Annotated[
    str | None, typer.Option(help="Key of the group of inference; else speaker, dialogue or row, as there is.")
]
Task = Annotated[str | None, typer.Option(help="classification or regression; else by the labels' type.")]
DropUnlabelled = Annotated[
    bool, typer.Option("--drop-unlabelled", help="Remove rows without a label instead of keeping them as context.")
]
AbsentNonfinite = Annotated[
    bool, typer.Option("--absent-where-nonfinite", help="A row with NaN or infinity lacks that modality.")
]
Normalisation = Annotated[str, typer.Option(help="Default of searches on it: train, group or none.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a dataset of that name.")]


def _command(kind: str, text: str) -> Callable[..., None]:
    """The command for one kind of file with named columns; all have the same options."""

    def command(
        file: File,
        name: Name,
        modality: Modality,
        label: Label,
        label_names: LabelNames = None,
        id_: Id = None,
        dialogue: Dialogue = None,
        order: Order = None,
        speaker: Speaker = None,
        fold: Fold = None,
        split: Split = None,
        presence: Presence = None,
        group: Group = None,
        task: Task = None,
        drop_unlabelled: DropUnlabelled = False,
        absent_where_nonfinite: AbsentNonfinite = False,
        normalisation: Normalisation = "train",
        overwrite: Overwrite = False,
        json: Json = False,
    ) -> None:
        from mcutune.data.importers import import_npz, import_parquet

        roles = _roles(
            modality, label, task, normalisation, label_names=label_names, id=id_, dialogue=dialogue, order=order,
            speaker=speaker, fold=fold, split=split, presence=presence, group=group, drop_unlabelled=drop_unlabelled,
            absent_where_nonfinite=absent_where_nonfinite,
        )  # fmt: skip
        work = {"npz": import_npz, "parquet": import_parquet}[kind]
        _print_imported(work(file, name, roles, overwrite=overwrite), json)

    command.__doc__ = f"{text}\n\nNothing is written where the audit finds an error; all errors are named at once."
    return command


app.command("npz")(
    _command(
        "npz", "Import a NumPy archive: an array of features [rows, dims] a modality, one value a row for the rest."
    )
)
app.command("parquet")(
    _command(
        "parquet",
        "Import a Parquet file: a modality is a column of lists, or several columns by pattern (audio=audio_*).",
    )
)


@app.command()
def layout(
    labels: Annotated[Path, typer.Argument(help="The label pickle of IEMOCAP, CMU-MOSI or CMU-MOSEI.")],
    name: Name,
    modality: Annotated[
        list[str],
        typer.Option(help="NAME=FOLDER with a .npy, or a folder of them, an utterance. Once for each, in order."),
    ],
    drop_unlabelled: DropUnlabelled = False,
    absent_where_nonfinite: AbsentNonfinite = False,
    normalisation: Normalisation = "train",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Import the folders that GCNet, MoMKE and MCULoRA use: features an utterance, and a label pickle.

    The pickle is read once, in a child process with limits, by a reader that can run nothing.
    """
    from mcutune.data.importers import import_layout

    folders = _modalities(modality)
    bare = [one for one in modality if "=" not in one]
    if bare:
        raise BadInput(
            f"--modality {bare[0]!r} names no folder", hint="NAME=FOLDER, for example audio=features/wav2vec"
        )
    imported = import_layout(
        labels,
        {one: Path(folder) for one, folder in folders.items()},
        name,
        overwrite=overwrite,
        normalisation=_one_of(normalisation, "--normalisation", _MODES),
        drop_unlabelled=drop_unlabelled,
        absent_where_nonfinite=absent_where_nonfinite,
    )
    _print_imported(imported, json)


def _roles(modality: list[str], label: str, task: str | None, normalisation: str, **keys: Any) -> Roles:
    from mcutune.data.assemble import Roles
    from mcutune.domain.task import Task as Kind

    kind = Kind(_one_of(task, "--task", [one.value for one in Kind])) if task is not None else None
    mode: Any = _one_of(normalisation, "--normalisation", _MODES)
    return Roles(modalities=_modalities(modality), label=label, task=kind, normalisation=mode, **keys)


def _modalities(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, _, key = text.partition("=")
        if name in found:
            raise BadInput(f"--modality {name!r} is given twice")
        found[name] = key or name
    return found


def _one_of(given: str, option: str, valid: list[str]) -> str:
    if given not in valid:
        raise BadInput(f"{option} {given!r} does not exist", hint=f"valid: {', '.join(valid)}")
    return given


def _print_imported(imported: Imported, json: bool) -> None:
    from mcutune.cli.data import summary_line, table_facts

    manifest = imported.table.manifest
    if json:
        print_json({**table_facts(manifest), "findings": [finding.to_json() for finding in imported.findings]})
        return
    print(summary_line(manifest))
    for finding in imported.findings:
        print(f"  {finding.level}: {inert(finding.message)}")
