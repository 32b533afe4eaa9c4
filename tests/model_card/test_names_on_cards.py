"""Names that hold markup, on cards: read back by CommonMark's rules with GitHub's tables, as text and nothing else."""

import html
import json
import os
import re

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from test_model_card import edit_json, make_checkpoint

from model_card.render import render_model_card, write_model_card
from model_card.run_summary import write_run_summary
from modeling_ast.system.names_as_text import html_text, markdown_block, markdown_code, markdown_text, storable

NAMES = (
    "a|b",
    "a\\|b",
    "*x*",
    "_x_",
    "[x](http://y.example)",
    "![x](y.png)",
    "<b>x</b>",
    "<img src=x onerror=alert(1)>",
    "</details>",
    "<!-- x",
    "`x`",
    "``` x",
    "x`",
    " x ",
    "  ",
    "a\nb",
    "a\n\n# b",
    "a\r\n---\r\nb",
    "a\tb",
    "---",
    "# x",
    "x #",
    "1. x",
    "12) x",
    "- x",
    "+ x",
    "> x",
    "=1+1",
    "~~x~~",
    "&lt;b&gt;",
    "&#60;",
    "\\",
    "\\*x*",
    "{{ x }}",
    "{% raw %}",
    "${x}",
    "$x^2$",
    "@x",
    "https://x.example",
    "www.x.example",
    "x: y",
    "? x",
    "!!python/object x",
    "\u202ex",
    "\u200bx",
    os.fsdecode(b"t\xf6ne"),
)


def parse(text):
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)


def shape_of(tokens):
    """What a text is made of, without its words."""
    return [
        (token.type, token.tag) if not token.children else [(child.type, child.tag) for child in token.children]
        for token in tokens
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["{}", "# {}", "- {}", "Of {}, too.", "| a |\n| --- |\n| {} |"])
def test_names_are_text_in_markdown(name, place):
    if not name.strip():
        return
    tokens = parse(place.format(markdown_text(name)))
    assert shape_of(tokens) == shape_of(parse(place.format("name")))
    words = "".join(child.content for token in tokens for child in token.children or ())
    assert words.endswith(place.rpartition("\n")[2].replace("|", "").lstrip("# -").strip().format(storable(name)))


@pytest.mark.parametrize("name", [*NAMES, ""])
@pytest.mark.parametrize("place", ["{}", "{}, `y`", "| a |\n| --- |\n| {} |"])
def test_names_are_code_in_markdown(name, place):
    written = markdown_code(name).replace("|", "\\|") if "|" in place else markdown_code(name)
    tokens = parse(place.format(written))
    assert shape_of(tokens) == shape_of(parse(place.format("`name`")))
    code = [child.content for token in tokens for child in token.children or () if child.type == "code_inline"]
    assert code[0] == (storable(name) or " ")


@pytest.mark.parametrize("text", ["a", "a\n```\nb", "````", "a\n~~~\n# b"])
def test_code_blocks_hold_fences(text):
    fence, end = parse(markdown_block(text, "bash") + "\n\nend")[:2]
    assert (fence.type, fence.info, fence.content) == ("fence", "bash", text + "\n")
    assert end.type == "paragraph_open"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_in_html(name):
    assert html.unescape(html_text(name)) == storable(name)
    assert not set('<>"') & set(html_text(name))


@pytest.fixture(params=["multi_class", "multi_label"])
def card_of_odd_names(tmp_path, request):
    """A run whose every label, and much else, is one of the names."""

    def make(wrap):
        folder = make_checkpoint(tmp_path, fixture=request.param)
        summary = json.loads((folder / "run_summary.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        known = iter(NAMES)
        names = {label: wrap(next(known)) for label in summary["labels"]}
        texts = [json.dumps(content) for content in (summary, config)]
        summary, config = (_renamed(json.loads(text), names) for text in texts)
        summary["data"]["name"] = wrap("<b>data</b> | `x`\n# y")
        summary["data"].pop("hub_id")
        summary["data"]["license"] = [wrap(name) for name in NAMES]
        summary["training"] |= {f"setting {number}": wrap(name) for number, name in enumerate(NAMES)}
        summary["command"] = f"ast-finetune {wrap('```')}\n{wrap('# x')}"
        summary["evaluation"]["left_out"] = [wrap(name) for name in NAMES]
        write_run_summary(folder, summary)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def _renamed(content, names):
    if isinstance(content, dict):
        return {names.get(key, key): _renamed(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [_renamed(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content


def test_a_card_of_odd_names_has_the_shape_of_one_of_plain_names(card_of_odd_names, tmp_path):
    odd = write_model_card(card_of_odd_names(lambda name: name)).read_text(encoding="utf-8")
    (odd_folder,) = tmp_path.iterdir()
    odd_folder.rename(tmp_path / "odd")
    numbers = iter(range(1000))
    plain = render_model_card(card_of_odd_names(lambda name: f"name{next(numbers)}"))
    odd_tokens, plain_tokens = (parse(ModelCard(text).text) for text in (odd, plain))
    assert [token.type for token in odd_tokens] == [token.type for token in plain_tokens]
    assert not [
        child.content
        for token in odd_tokens
        for child in token.children or ()
        if child.type in ("html_inline", "em_open", "strong_open", "s_open")
    ]
    blocks = [
        [token.content for token in tokens if token.type == "html_block"] for tokens in (odd_tokens, plain_tokens)
    ]
    assert blocks[0] == blocks[1]
    pictures_and_links = [
        [
            dict(child.attrs)
            for token in tokens
            for child in token.children or ()
            if child.type in ("image", "link_open")
        ]
        for tokens in (odd_tokens, plain_tokens)
    ]
    assert pictures_and_links[0] == pictures_and_links[1]


@pytest.mark.parametrize("name", ["a\n---\nb", "x: y #z", "{{ x }}", "'\"", "!!x", os.fsdecode(b"t\xf6ne"), "*x*"])
def test_a_folder_of_any_name_has_a_card_with_metadata(tmp_path, name):
    folder = make_checkpoint(tmp_path, name)
    card = ModelCard(write_model_card(folder).read_text(encoding="utf-8"))
    assert card.data.model_name == storable(name)
    heading = next(token for token in parse(card.text) if token.type == "inline")
    assert "".join(child.content for child in heading.children) == storable(name)


def test_a_summary_takes_names_of_files_that_are_no_text(tmp_path):
    name = os.fsdecode(b"t\xf6ne.wav")
    path = write_run_summary(tmp_path, {"file": name})
    assert json.loads(path.read_text(encoding="utf-8")) == {"file": name}


def test_addresses_that_are_none_are_text(tmp_path):
    folder = make_checkpoint(tmp_path)
    edit_json(folder / "run_summary.json", "license_notice", value={"work": "<b>w</b>", "address": "x><script>y"})
    card = render_model_card(folder)
    assert "<script>" not in card
    assert "<b>" not in card


@pytest.mark.parametrize(
    "address", ["https://x.example", "http://x.example", "www.x.example", "See HTTPS://x.example"]
)
def test_a_bare_address_is_no_link_on_github(address):
    """GitHub makes links of `http://`, `https://` and `www.` (GFM, section 6.9)."""
    text = markdown_text(address)
    assert not re.search(r"https?://|www\.", text, re.IGNORECASE)
    assert html.unescape(text) == address
