"""`fairdx prepare NAME`: one command for each reader, its options taken from the reader's own signature.

So a reader's keyword arguments and its docstring are the only place where its options are written.
"""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fairdx.commands.interrupts import GOES_ON, interruptible
from fairdx.core.config import validate
from fairdx.core.console import PlainConsole
from fairdx.data.base import EXCLUSIONS, PreparedDataset
from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers import READERS
from fairdx.data.source import Source

Option = tuple[str, Any, Any, str]
"""Name, annotation, default (or `inspect.Parameter.empty`) and help."""

HELP = """Verify, decode and cache a data set: one command for each.

Example: `fairdx prepare nih --root CXR14 --out prepared/nih`
"""
ROOT: Option = ("root", Path, inspect.Parameter.empty, "Folder of the data set as it was downloaded.")
OUT: Option = (
    "out",
    Path,
    inspect.Parameter.empty,
    "Folder to write to; after an interruption the same command goes on in it.",
)
PHANTOM = ("size", "train", "validation", "test", "images_per_patient", "conspicuity", "noise", "seed")


def add_prepare(app: typer.Typer) -> None:
    """Adds `prepare` with a command for each reader, and for the phantom."""
    group = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(group, name="prepare")
    for name, reader in READERS.items():
        own = _reader_options(reader)
        taken = {option[0] for option in own}
        common = [option for option in _common_options() if option[0] not in taken]
        run = partial(_prepare, reader, [option[0] for option in common])
        _add(group, name, run, inspect.getdoc(reader), [ROOT, OUT, *own, *common])
    _add(group, "phantom", _prepare_phantom, inspect.getdoc(_prepare_phantom), [OUT, *_phantom_options()])


def _prepare(
    reader: Callable[..., Source], common: Sequence[str], *, root: Path, out: Path, **given: Any
) -> None:
    """Reads with the reader's options and prepares with the common ones; what was not given is left out."""
    chosen = {key: value for key, value in given.items() if value not in (None, [])}
    options = PrepareOptions(**{key: value for key, value in chosen.items() if key in common})
    with interruptible(GOES_ON):
        source = reader(root, **{key: value for key, value in chosen.items() if key not in common})
        dataset = prepare(source, out, options)
    _announce(dataset)


def _prepare_phantom(*, out: Path, **settings: Any) -> None:
    """Render the built-in phantom: simulated chest radiographs whose true direct effect is known.

    Example: `fairdx prepare phantom --out prepared/phantom`
    """
    source = Phantom(validate(PhantomSettings, settings, where="phantom")).source()
    with interruptible(GOES_ON):
        dataset = prepare(source, out, PrepareOptions(seed=settings["seed"]))
    _announce(dataset)


def _add(
    group: typer.Typer, name: str, run: Callable[..., None], description: str | None, options: list[Option]
) -> None:
    """Adds a command with these options and a docstring's description, without its sections."""

    def command(**given: Any) -> None:
        run(**given)

    parameters = [
        inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(help=text)],
        )
        for key, kind, default, text in options
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = (description or "").partition("\n\nArgs:")[0]
    group.command(name)(command)


def _announce(dataset: PreparedDataset) -> None:
    """Says what was prepared, what was left out, and how to look at it."""
    console = PlainConsole()
    meta = dataset.meta
    console.print(
        f"{dataset.root}: {', '.join(f'{number:,} {name}' for name, number in meta.counts.items())}"
    )
    for reason, number in meta.exclusions.items():
        console.print(f"  left out {number:,}: {reason}")
    if meta.exclusions:
        console.print(f"  each of them is listed in {dataset.root / EXCLUSIONS}")
    console.print(f"Look at it with: fairdx inspect {dataset.root}")


def _reader_options(reader: Callable[..., Source]) -> list[Option]:
    # The readers import these for type checkers only, and their annotations are text.
    kinds = typing.get_type_hints(reader, localns={"Path": Path, "Sequence": Sequence, "Source": Source})
    texts = _argument_texts(reader)
    return [
        (name, _plain(kinds[name]), _listed(parameter.default), texts.get(name, ""))
        for name, parameter in inspect.signature(reader).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]


def _common_options() -> list[Option]:
    kinds, texts = typing.get_type_hints(PrepareOptions), _field_texts(PrepareOptions)
    return [
        (field.name, _plain(kinds[field.name]), _listed(field.default), texts[field.name])
        for field in fields(PrepareOptions)
    ]


def _phantom_options() -> list[Option]:
    known, texts = PhantomSettings.model_fields, _field_texts(PhantomSettings)
    return [(name, known[name].annotation, known[name].default, texts[name]) for name in PHANTOM]


def _argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """The descriptions in the `Args:` section of a Google docstring."""
    section = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, flags=re.M | re.S)
    return {name: " ".join(text.split()) for name, text in entries}


def _field_texts(kind: type) -> dict[str, str]:
    """The strings below the fields of a class."""
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', inspect.getsource(kind), flags=re.M | re.S)
    return {name: " ".join(text.split()) for name, text in found}


def _plain(kind: Any) -> Any:
    """A type that the command line can read: sequences become repeatable, `X | None` stays optional."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Sequence or parts[1:] == (...,):
        return list[parts[0]]  # type: ignore[valid-type]
    if Path in parts:
        return Path | None if type(None) in parts else Path
    return kind


def _listed(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default
