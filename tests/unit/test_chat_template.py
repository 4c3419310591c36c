"""Templates as transformers renders them, with what is trained marked."""

import itertools

import pytest

from nemoflow.chat_template import BEGIN, END, Template
from nemoflow.errors import UserError
from nemoflow.rows import Unusable
from small_chats import CHATML, NEMOTRON, TOOLS, assistant, system, tool, unmarked, user

ARGUMENTS = {"tools": TOOLS, "enable_thinking": True}


@pytest.fixture(scope="module")
def theirs():
    """Transformers' text of messages."""
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")

    def run(template, messages, prompt, **arguments):
        (text,), _ = utilities.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=prompt, **arguments
        )
        return text

    return run


@pytest.mark.parametrize("template", [CHATML, NEMOTRON, unmarked(NEMOTRON)])
def test_transformers_renders_the_same(theirs, template):
    call = {"function": {"name": "look_up", "arguments": {"query": [1, "é <&>'"], "where": {}}}}
    turns = [user("1+2?"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    shapes = (turns[:1], turns, [system("s"), *turns, tool("3"), tool("4"), assistant("b", "c")])
    modes = (
        {"enable_thinking": False},
        {"low_effort": True, "truncate_history_thinking": False},
        {"reasoning_budget": 9, "response_format": {"type": "json"}},
    )
    ours = Template(template)
    for messages, prompt, mode in itertools.product(shapes, (True, False), modes):
        told = ARGUMENTS | mode
        assert ours.text(messages, told, prompt) == theirs(template, messages, prompt, **told)


SHAPES = """
{%- set place = namespace(n=0) %}
{%- macro twice(x) %}{{ x }}{{ x }}{% endmacro %}
{%- for m in messages %}
    {%- if m.skip is defined and m.skip %}{% continue %}{% endif %}
    {%- if loop.index > 9 %}{% break %}{% endif %}
    {%- set place.n = place.n + 1 %}
    {{- loop.index0 ~ loop.first ~ loop.last ~ loop.length ~ loop.cycle('a', 'b') }}
    {{- loop.previtem.role if not loop.first }}{{ loop.nextitem is defined }}
    {{- m.items is callable }}{{ m['items'] }}{{ m.get('role') }}{{ m.keys() | list }}
    {{- twice(m.role | upper) }}{{ m.missing }}{{ m.missing is none }}
    {{- m.content[:2] ~ m.content.strip() ~ m.content.split('a') }}
    {{- m | tojson(indent=2) }}{{ m | tojson(sort_keys=true, separators=(',', ':')) }}
{%- endfor %}
{{- place.n }}{{ messages[-1]['role'] }}{{ messages | length }}
{{- messages[1:] | map(attribute='role') | list }}
{{- tools | selectattr('name', 'defined') | list | length }}
"""


def test_what_templates_do_with_messages(theirs):
    turns = [
        {"role": "user", "content": " ab ", "items": [1], "skip": False},
        {"role": "assistant", "content": "<'&é\u2028", "skip": True},
        {"role": "tool", "content": "cad", "n": 1.5, "none": None, "items": {}},
    ]
    assert Template(SHAPES).text(turns, ARGUMENTS) == theirs(SHAPES, turns, False, **ARGUMENTS)


def test_what_is_generated_stands_between_marks():
    turn = "a{% generation %}\n{{ m.content }}{%- endgeneration -%}\n b"
    text = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    template = Template(text)
    assert template.marked
    told = template.marked_text([user("1 "), user("2")], {})
    assert told == f"a{BEGIN}1 {END}ba{BEGIN}2{END}b"
    assert template.text([user("1 "), user("2")], {}) == "a1 ba2b"
    for tag in ("{%- generation -%}x{%- endgeneration %}", "{%+ generation %}x{% endgeneration %}"):
        assert Template(tag).marked and Template(tag).marked_text([], {}) == f"{BEGIN}x{END}"
    assert not Template("{# generation #}{{ generation }}").marked


def test_no_row_can_hold_a_mark():
    with pytest.raises(UnicodeEncodeError):
        BEGIN.encode()
    with pytest.raises(UnicodeEncodeError):
        END.encode()


def test_tokens_are_known_by_name():
    assert Template("{{ bos_token }}{{ eos_token }}|", {"bos_token": "<s>"}).text([], {}) == "<s>|"


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception('no') }}",
        "{{ messages[0].content + 3 }}",
        "{{ messages[0].__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ missing.inside }}",
        "{{ missing() }}",
        "{{ 1 / 0 }}",
        "{{ '{0.__class__}'.format(messages) }}{{ raise_exception('') }}",
        "{{ '{a}'.format(b=1) }}",
        "{{ '%d' | format('a') }}",
        "{{ 'a'.index('b') }}",
        "{{ {}.pop() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ strftime_now('%Y') }}",
        "{{ ('a' * 9).encode('nothing') }}",
        "{{ {'a': messages[0].content.encode()} | tojson }}",
        "{% include 'x' %}",
    ],
)
def test_templates_that_fail(text):
    with pytest.raises(Unusable) as caught:
        Template(text).text([user("a")], {})
    assert caught.value.drop.reason == "template_error"


def test_a_value_that_is_too_deep_for_json_fails():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(Unusable) as caught:
        Template("{{ messages[0].content | tojson }}").text([user(deep)], {})
    assert caught.value.drop.reason == "template_error"


def test_a_template_that_is_none():
    with pytest.raises(UserError, match="chat template, line 2"):
        Template("a\n{% if %}")
    with pytest.raises(UserError, match="chat template, line 1"):
        Template("{% generation %}a")
