"""Chat templates of Hugging Face: Jinja as transformers compiles it, with what is trained marked.

`{% generation %} … {% endgeneration %}` encloses what the model writes, as in transformers' own
templates; here a lone surrogate stands before and after it in the rendered text, which no row can
hold: half of a surrogate pair is not text in UTF-8.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from nemoflow.errors import UserError
from nemoflow.messages import Message
from nemoflow.rows import Unusable

BEGIN, END = "\ud800", "\udfff"
METHODS = frozenset(dir(dict))  # they come before items of the same name
READING = frozenset({"get", "items", "keys", "values"})
FAULTS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
FAULTS += (RecursionError,)  # of a macro that calls itself, or of a value too deep for JSON
GENERATION = re.compile(r"\{%[-+]?\s*generation\b")


class Template:
    """A chat template.

    `special` are the tokens that templates know by name: bos_token, eos_token, ... `marked` says
    whether it encloses what the model writes. The sandbox is transformers', for templates of
    strangers; their clock (`strftime_now`) is missing, since a product has no time.

    Raises:
        UserError: it is not valid Jinja; with the line.
    """

    def __init__(self, text: str, special: Mapping[str, str] | None = None):
        environment = Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
        )
        environment.filters["tojson"] = to_json
        environment.globals |= {"raise_exception": raise_exception, **(special or {})}
        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise UserError(f"chat template, line {error.lineno}: {error.message}") from error
        self.marked = GENERATION.search(text) is not None

    def marked_text(
        self, messages: list[Message], arguments: Mapping[str, Any], prompt: bool = False
    ) -> str:
        """A conversation as text, marks included; `prompt` asks for the generation prompt.

        Raises:
            Unusable: template_error.
        """
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=prompt, **arguments
            )
        except FAULTS as error:
            raise Unusable("template_error", str(error)) from error

    def text(
        self, messages: list[Message], arguments: Mapping[str, Any], prompt: bool = False
    ) -> str:
        """The same without marks."""
        rendered = self.marked_text(messages, arguments, prompt)
        return rendered.replace(BEGIN, "").replace(END, "")


class Sandbox(ImmutableSandboxedEnvironment):
    """Transformers' sandbox, with a short way to what rows hold, and to Jinja's own loops."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: what Jinja finds, but without asking whether it is safe where it is."""
        kind = type(obj)
        if kind is dict:
            if attribute not in METHODS:
                found = obj.get(attribute, obj)
                return self.undefined(obj=obj, name=attribute) if found is obj else found
            if attribute in READING:
                return getattr(obj, attribute)
        if (kind is LoopContext or kind is Namespace) and attribute[0] != "_":
            found = getattr(obj, attribute, obj)
            if found is not obj:
                return found
        return super().getattr(obj, attribute)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """`obj(…)`: a macro is the template's own, so safe."""
        if type(obj) is Macro:
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return obj(*args, **kwargs)
        return super().call(context, obj, *args, **kwargs)


class Generation(Extension):
    """The tag `generation`: marks what stands in it."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own way)

    def parse(self, parser: Parser) -> nodes.Node:
        """A call of `enclosed` around what the tag holds."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("enclosed"), [], [], body).set_lineno(line)

    def enclosed(self, caller: Callable[[], str]) -> str:
        """What the model writes, marked."""
        return BEGIN + caller() + END


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` as transformers has it: no character is escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def raise_exception(message: str) -> None:
    """How a template refuses a conversation."""
    raise TemplateError(message)
