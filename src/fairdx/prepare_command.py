"""`fairdx prepare NAME`: one command for each reader, its options taken from the reader's own signature.

So a reader's keyword arguments and its docstring are the only place where its options are written.
"""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fairdx.data.phantom import Phantom, PhantomSettings
from fairdx.data.prepare import PrepareOptions, prepare
from fairdx.data.readers import READERS
from fairdx.data.source import Source
from fairdx.config import validate

Option = tuple[str, Any, Any, str]
"""Name, annotation, default (or `inspect.Parameter.empty`) and help."""


def add_prepare(app: typer.Typer) -> None:
    """Adds `prepare` with a command for each reader, and for the phantom."""
    group = typer.Typer(help="Verify, decode and cache a data set.", no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(group, name="prepare")
    for name, reader in READERS.items():
        _add(group, name, reader, _reader_options(reader))
    _add(group, "phantom", _read_phantom, _phantom_options())


def _read_phantom(**settings: Any) -> Source:
    """Render the built-in phantom: simulated chest radiographs whose true direct effect is known.

    Example: `fairdx prepare phantom --out prepared/phantom`
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return Phantom(validate(PhantomSettings, given, where="phantom")).source()


def _add(group: typer.Typer, name: str, reader: Callable[..., Source], own: list[Option]) -> None:
    """Adds a command that reads with the reader's options and prepares with the common ones."""
    names = {option[0] for option in own}
    common = [option for option in _common_options() if option[0] not in names]
    needs_root = "root" in inspect.signature(reader).parameters

    def command(**given: Any) -> None:
        out = given.pop("out")
        root = {"root": given.pop("root")} if needs_root else {}
        chosen = {key: given[key] for key in names}
        source = reader(**root, **{key: value for key, value in chosen.items() if value not in (None, [])})
        options = PrepareOptions(**{key: given[key] for key, *_ in common})
        dataset = prepare(source, out, options)
        _announce(dataset.root, dataset.meta.counts, dataset.meta.exclusions)

    folder: list[Option] = [("root", Path, inspect.Parameter.empty, "Folder of the data set as it was downloaded.")]
    target: Option = ("out", Path, inspect.Parameter.empty, "Folder to write to; the same command goes on in it.")
    options = [*(folder if needs_root else []), target, *own, *common]
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
    command.__doc__ = (inspect.getdoc(reader) or "").partition("\n\nArgs:")[0]
    group.command(name)(command)


def _announce(root: Path, counts: dict[str, int], exclusions: dict[str, int]) -> None:
    console = Console()
    console.print(f"{root}: " + ", ".join(f"{number:,} {name}" for name, number in counts.items()), highlight=False)
    for reason, number in exclusions.items():
        console.print(f"  left out {number:,}: {reason} (listed in exclusions.csv)", highlight=False, markup=False)


def _reader_options(reader: Callable[..., Source]) -> list[Option]:
    # The readers import these for type checkers only, and their annotations are text.
    kinds = typing.get_type_hints(reader, localns={"Path": Path, "Sequence": Sequence, "Source": Source})
    texts = _argument_texts(reader)
    return [
        (name, _plain(kinds[name]), _listed(parameter.default), texts.get(name, ""))
        for name, parameter in inspect.signature(reader).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]


def _phantom_options() -> list[Option]:
    shown = ("size", "train", "validation", "test", "images_per_patient", "conspicuity", "noise", "seed")
    known = PhantomSettings.model_fields
    return [(name, known[name].annotation, known[name].default, known[name].description or "") for name in shown]


def _common_options() -> list[Option]:
    kinds = typing.get_type_hints(PrepareOptions)
    source = inspect.getsource(PrepareOptions)
    texts = dict(re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, flags=re.M | re.S))
    return [(field.name, kinds[field.name], field.default, " ".join(texts[field.name].split())) for field in fields(PrepareOptions)]


def _argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """The descriptions in the `Args:` section of a Google docstring."""
    section = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, flags=re.M | re.S)
    return {name: " ".join(text.split()) for name, text in entries}


def _plain(kind: Any) -> Any:
    """A type that the command line can read: sequences become repeatable options, `X | None` stays optional."""
    if typing.get_origin(kind) is Sequence:
        return list[typing.get_args(kind)[0]]  # type: ignore[misc]
    parts = typing.get_args(kind)
    if Path in parts:
        return Path | None if type(None) in parts else Path
    return kind


def _listed(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default
