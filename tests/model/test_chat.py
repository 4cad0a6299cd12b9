import pytest

from minillm.errors import RequestError
from minillm.model import chat
from minillm.model.chat import render_chat

ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PARTS = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
EITHER = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}"
)
SUM = "{{ 'user: ' + messages[0].content }}"
HI = [{"role": "user", "content": "hi"}]


def render(
    template, messages=HI, add_generation_prompt=True, continue_final_message=False, tools=None, **variables
):
    return render_chat(
        template,
        messages,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        tools=tools,
        variables=variables,
    )


def said(*texts, role="user", kind="text"):
    return [{"role": role, "content": [{"type": kind, "text": text} for text in texts]}]


@pytest.mark.parametrize(
    ("template", "text", "parts"),
    [
        (ROLES, "user: hi\n", "user: a\nb\n"),
        (SUM, "user: hi", "user: a\nb"),
        (PARTS, "[hi]", "[a][b]"),
        (EITHER, "hi", "[a][b]"),
    ],
)
def test_content_has_the_form_that_the_template_reads(template, text, parts):
    assert render(template) == text
    assert render(template, said("a", "b")) == render(template, said("a", "b", kind="input_text")) == parts
    assert render(template, [{"role": "user", "content": ["a", "b"]}]) == parts


def test_tool_results_and_absent_content_are_text():
    assert render(EITHER, said("a", "b", role="tool")) == "a\nb"
    assert render(ROLES, [{"role": "assistant"}]) == render(ROLES, [{"role": "assistant", "content": None}])


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "empty: give at least one message"),
        ([{"content": "hi"}], r"messages\[0\] is .*a 'role'"),
        ([*HI, "hi"], r"messages\[1\] is 'hi'"),
        ([{"role": 3, "content": "hi"}], r"messages\[0\] is .*a 'role'"),
        ([{"role": "user", "content": 3}], r"\['content'\] is of type int: give text"),
        ([{"role": "user", "content": b"hi"}], "of type bytes"),
        ([{"role": "user", "content": [3]}], r"\['content'\]\[0\] is of type int"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "has type None"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"\[0\]\['text'\] is None"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], r"\['text'\] is 3"),
        (said("a", kind="image_url"), "has type 'image_url': models here read text only"),
        ([{**HI[0], "name": {1, 2}}], "plain JSON values: .*is a set"),
    ],
)
def test_a_message_of_a_wrong_form_is_refused_by_name(messages, what):
    with pytest.raises(RequestError, match=what):
        render(ROLES, messages)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate. Change the messages"),
        ("{{ messages[0].foo.bar }}", "UndefinedError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ messages[0] + 1 }}", "TypeError"),
        ("{{ messages.__class__.__mro__ }}", "SecurityError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 'a' * 10**10 }}", "too much memory"),
        ("{{ '%9999999999d' % 1 }}", "too much memory|OverflowError"),
        ("{% for i in range(20000) %}{{ 'a' * 1000 }}{% endfor %}", "writes 20000000 characters"),
    ],
)
def test_what_a_template_raises_is_an_error_of_ours(template, what):
    with pytest.raises(RequestError, match=what):
        render(template)
    assert render(SUM) == "user: hi"


@pytest.mark.slow
def test_a_template_without_an_end_is_stopped_and_the_next_one_runs(monkeypatch):
    chat._stop()  # a process keeps the limits that it began with
    monkeypatch.setattr(chat, "CPU_SECONDS", 1)
    with pytest.raises(RequestError, match="was stopped: it ran for more than 1 s"):
        render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    assert render(SUM) == "user: hi"
    chat._stop()


def test_an_interrupt_leaves_no_answer_for_the_next_conversation(monkeypatch):
    class Interrupted:
        def __init__(self, reader):
            self.close = reader.close

        def readline(self):
            raise KeyboardInterrupt

    render(SUM)
    with monkeypatch.context() as patch:
        patch.setattr(chat._process, "stdout", Interrupted(chat._process.stdout))
        with pytest.raises(KeyboardInterrupt):
            render(SUM, [{"role": "user", "content": "interrupted"}])
    assert render(SUM) == "user: hi"


def test_variables_and_tools_reach_the_template():
    template = "{{ thinking }} {{ tools[0].name if tools else tools }} {{ add_generation_prompt }}"
    assert render(template, thinking=False) == "False None True"
    assert render(template, add_generation_prompt=False, tools=[{"name": "add"}]) == " add False"


def test_arguments_that_contradict_are_refused():
    with pytest.raises(RequestError, match="both true"):
        render(ROLES, continue_final_message=True)
    with pytest.raises(RequestError, match="'tools', which is an argument of its own"):
        render_chat(
            ROLES,
            HI,
            add_generation_prompt=True,
            continue_final_message=False,
            tools=None,
            variables={"tools": []},
        )
    with pytest.raises(RequestError, match="tools must be a list of JSON schemas"):
        render(ROLES, tools=[print])


@pytest.mark.parametrize("template", [ROLES, PARTS])
def test_the_final_message_can_be_left_open(template):
    messages = [*HI, {"role": "assistant", "content": "I think "}]
    text = render(template, messages, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("I think ")
    with pytest.raises(RequestError, match="does not appear"):
        render("content", messages, add_generation_prompt=False, continue_final_message=True)
