"""Pages of the documentation that are made from the code when the site is built (a MkDocs hook).

recipe.md comes from the pydantic models of a recipe, commands.md from the command line, api.md
from `scdpo.__all__`. Every page is also checked to load nothing from another host.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import ismodule
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

# ---- recipe.md

RECIPE_INTRODUCTION = """\
# Recipe reference

A recipe is one YAML file. Every key has a default, except `problems`; an unknown key is an error.
`scdpo recipe NAME_OR_FILE` prints a recipe with every default filled in, as a run writes it to
`RUN/recipe.yaml`. Recipes in the
package are `embedded` (the default run), `smoke` (a minute, for tests), `import` (for recorded
solutions), and those of [Recipes, plans and memory](models.md).

`preset: paper` starts from the settings of the paper; `preset: released-code` from those of the
code released with it, where the two differ. Keys in the recipe override the preset.
`--set KEY=VALUE` overrides a key on the command line
([what is kept of it](training.md#change-a-setting-set)).

This page is generated from the models that validate a recipe.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a recipe, as a row of a table."""

    name: str
    type: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of a model; `path` is where they stand in a recipe, '' for the top."""

    path: str
    summary: str
    keys: tuple[Key, ...]


def recipe_model() -> type[BaseModel]:
    """The model of a recipe."""
    from scdpo.pipeline.recipe import Recipe

    return Recipe


def shown_model(inner: type[BaseModel] | None, where: str) -> type[BaseModel] | None:
    """The model whose keys stand at `where`: the keys of `engine` are those of its kind."""
    if where == "engine":
        from scdpo.engines.local import LocalEngineConfig

        return LocalEngineConfig
    return inner


def other_kinds(where: str) -> list[tuple[str, type[BaseModel]]]:
    """The other kinds of what stands at `where` that are in the package, by name."""
    if where == "engine":
        from scdpo.engines.http.config import HttpEngineConfig
        from scdpo.engines.vllm.config import VllmEngineConfig

        return [("http", HttpEngineConfig), ("vllm", VllmEngineConfig)]
    return []


def sections(model: type[BaseModel], path: str = "") -> Iterator[Section]:
    """A section for a model and, depth first, one for each model among its keys."""
    keys, below = [], []
    for name, field in model.model_fields.items():
        where = f"{path}.{name}" if path else name
        inner = shown_model(_model_in(field.annotation), where)
        text = _description(field) or (_summary(inner) if inner else "")
        keys.append(Key(name, _type(field, inner, where), _default(field), text))
        if inner is not None:
            below.append((inner, where))
            below += [(other, f"{where} (name: {name})") for name, other in other_kinds(where)]
    yield Section(path, inspect.cleandoc(model.__doc__ or ""), tuple(keys))
    for inner, where in below:
        yield from sections(inner, where)


def missing_descriptions(model: type[BaseModel]) -> list[str]:
    """Keys without a description, dotted. A key that is a section is described by its model."""
    return [
        f"{section.path}.{key.name}" if section.path else key.name
        for section in sections(model)
        for key in section.keys
        if not key.description
    ]


def recipe_page(model: type[BaseModel]) -> str:
    """The page of all keys, as Markdown."""
    parts = [RECIPE_INTRODUCTION]
    for section in sections(model):
        depth = section.path.count(".") + 2 if section.path else 2
        parts.append(f"{'#' * min(depth, 4)} {section.path or 'The top level'}\n")
        parts.append(f"{section.summary}\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|")
        parts.append(
            "\n".join(
                f"| `{key.name}` | {_cell(key.type)} | {_cell(key.default)} "
                f"| {_cell(key.description)} |"
                for key in section.keys
            )
        )
        parts.append("")
    return "\n".join(parts)


def _summary(model: type[BaseModel]) -> str:
    """The first sentence of a model's docstring: what a key that is a section means."""
    return re.split(r"(?<=[.;:])\s", " ".join((model.__doc__ or "").split()))[0].rstrip(";:.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model among the alternatives of a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is tuple:
        return None  # only where one section is accepted as well as a list does it have a table
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _type(field: FieldInfo, inner: type[BaseModel] | None, where: str) -> str:
    if inner is not None:
        name = f"[section](#{_anchor(where)})"
        if any(get_origin(part) is tuple for part in _alternatives(field.annotation)):
            name += " or a list of such sections"
        return f"{name} or `null`" if type(None) in get_args(field.annotation) else name
    text = _type_text(field.annotation)
    bounds = ", ".join(filter(None, map(_bound, field.metadata)))
    return f"`{text}`" + (f", {bounds}" if bounds else "")


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a union is of, without what they are annotated with."""
    return [get_args(p)[0] if get_origin(p) is Annotated else p for p in get_args(annotation)]


def _type_text(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = re.sub(r"typing\.|Annotated\[(\w+), [^\]]*\]", lambda m: m[1] or "", text)
    text = re.sub(r"Literal\[([^\]]*)\]", lambda m: m[1].replace(", ", " or "), text)
    text = text.replace(" | ", " or ").replace("NoneType", "null").replace("None", "null")
    text = re.sub(r"tuple\[(.*?), \.\.\.\]", r"list of \1", text)
    text = re.sub(r"dict\[(\w+), (\w+)\]", r"mapping of \1 to \2", text)
    return text.replace("'", "").replace("Optional", "")


def _bound(constraint: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    for name, sign in signs.items():
        if hasattr(constraint, name):
            return f"{sign} {getattr(constraint, name)}"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_defaults=True)
        return ", ".join(f"`{key}: {item}`" for key, item in changed.items()) or "–"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{ {None: 'null', True: 'true', False: 'false'}[value] }`"
    return f"`{value}`" if value != "" else '`""`'


def _description(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _anchor(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


# ---- commands.md

COMMANDS_INTRODUCTION = """\
# Command line

Every command prints one line and exits with code 2 when its input is wrong. `scdpo COMMAND --help`
prints what stands here.

This page is generated from the commands themselves.
"""


def commands_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    import typer

    from scdpo.cli import main  # noqa: F401  (registers the commands)
    from scdpo.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = [COMMANDS_INTRODUCTION]
    for name, command in group.commands.items():
        parts.append(f"## scdpo {name}\n")
        parts.append(f"{inspect.cleandoc(command.help or '')}\n")
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join(["scdpo", name, *map(_argument_usage, arguments), "[OPTIONS]"])
        parts.append(f"```text\n{usage}\n```\n")
        rows = [_parameter_row(p) for p in command.params if "--help" not in p.opts]
        if rows:
            parts.append("| | | default |\n|---|---|---|")
            parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _argument_usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper()
    return name if argument.required else f"[{name}]"


def _parameter_row(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if argument else ", ".join(parameter.opts)
    shown = parameter.show_default
    default = parameter.default
    if isinstance(shown, str):
        text = shown
    elif parameter.required:
        text = "required"
    elif default in (None, False, ()) or not isinstance(default, (str, int, float)):
        text = "–"
    else:
        text = f"`{default}`"
    return f"| `{name}` | {_cell(' '.join((parameter.help or '').split()))} | {text} |"


# ---- api.md

API_INTRODUCTION = """\
# Python API

`import scdpo` is cheap: names are loaded when they are first used, and torch with them only where
it is needed. Functions that wait have an asynchronous twin (`sample_async`, …); the plain ones work
inside a running event loop, a notebook cell for instance, as well as outside.

This page is generated from the docstrings of the names that `scdpo` exports.
"""

API_GROUPS: dict[str, tuple[str, ...]] = {
    "The method": (
        *("load_problems", "sample", "sample_async", "branch", "branch_async", "Schedule"),
        *("pair", "train", "sft", "evaluate", "evaluate_async", "compare"),
    ),
    "What it runs on": ("Engine", "EngineProtocol", "Sandbox", "get_format"),
    "Grading": ("grade", "grade_async", "Verdict"),
    "Records": ("Problem", "Step", "Solution", "Pair"),
    "For your own training loop": (
        *("dpo_loss", "ipo_loss", "dpop_loss", "tree_logps", "pairs_from_rows"),
    ),
}


def api_page() -> str:
    """One entry for each exported name, as Markdown for mkdocstrings."""
    import scdpo

    exported: Sequence[str] = [n for n in scdpo.__all__ if not ismodule(getattr(scdpo, n))]
    parts = [API_INTRODUCTION]
    grouped = {name for names in API_GROUPS.values() for name in names}
    groups = {**API_GROUPS, "More": tuple(name for name in exported if name not in grouped)}
    for title, names in groups.items():
        found = [name for name in names if name in exported]
        if found:
            parts.append(f"## {title}\n")
            parts += [f"::: scdpo.{name}\n" for name in found]
    return "\n".join(parts)


# ---- the hook

EXTERNAL = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["'](?:https?:)?//"""
    r"""|<link\b(?=[^>]*\srel=["'](?:stylesheet|preconnect|preload))[^>]*\shref=["'](?:https?:)?//"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages. Raises PluginError for keys without a description, if asked to."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    missing = missing_descriptions(recipe_model())
    if missing and config.extra.get("every_key_described"):
        raise PluginError(f"recipe keys without a description: {', '.join(missing)}")
    pages = {
        "recipe.md": recipe_page(recipe_model()),
        "commands.md": commands_page(),
        "api.md": api_page(),
        "changelog.md": '--8<-- "CHANGELOG.md"\n',
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from another host."""
    from mkdocs.exceptions import PluginError

    if found := EXTERNAL.search(output):
        raise PluginError(f"{page.file.src_path} loads from another host: {found[0]}")
    return output
