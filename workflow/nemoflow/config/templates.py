"""Chat templates that mixtures name: their text, and whether they are what is asked of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoflow.config.messages import nearest
from nemoflow.errors import UserError

if TYPE_CHECKING:
    from nemoflow.config.load import Config


def at_paths(mixtures: Mapping[str, Any]) -> dict[str, str]:
    """{path: text} of the templates that mixtures name by path, to be frozen with the config."""
    written = [entry.get("value", {}).get("template") for entry in mixtures.values()]
    paths = [Path(path) for path in written if isinstance(path, str) and path.endswith(".jinja")]
    return {str(path): path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def text_of(known: Mapping[str, str], written: str) -> str:
    """The text of a template: itself, or by its name or path.

    Raises:
        UserError: there is none of that name, or no such file.
    """
    if "{{" in written or "{%" in written:
        return written
    if written in known:
        return known[written]
    if written.endswith(".jinja"):
        raise UserError(f"template {written}: there is no such file (from the repository's root)")
    raise UserError(f"config/templates: {nearest('template', written, sorted(known))}")


def check(config: "Config", name: str, mixture: Any) -> None:
    """A mixture's template is Jinja, and knows what the mixture asks of it."""
    from nemoflow.chat_template import Template  # Jinja, for who asks

    place = config.place("mixtures", name, "template")
    try:
        text = config.template(mixture.template)
        Template(text)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    modes = [mixture.reasoning, *(source.reasoning for source in mixture.sources.values())]
    if "low_effort" not in text and any(mode and mode.low_effort for mode in modes):
        raise UserError(
            f"{place}: the template does not know low_effort, so rows of low effort (reasoning."
            "low_effort) could not be told from others; let it write a mark for them"
        )
