"""What the tests of the card look for on every card."""

import re


def check_no_gaps(card: str) -> None:
    """Fail on what a missing fact would leave behind: a heading or table without content, an empty name, Python's None."""
    card = re.sub(r"```.*?```", "snippet", card, flags=re.DOTALL)
    lines = [line for line in card.splitlines() if line]
    for line, following in zip(lines, [*lines[1:], "# end"], strict=True):
        if line.startswith("#"):
            level, next_level = (len(text) - len(text.lstrip("#")) for text in (line, following))
            assert not next_level or next_level > level, f"nothing stands under {line!r}"
        assert not (line.startswith("| ---") and not following.startswith("|")), "a table without a row"
        assert not re.fullmatch(r"\|( *\|)+", line), "a row without a cell"
    for gap in (
        "None",
        "nan",
        "Undefined",
        "{{",
        "{%",
        "``",
        "()",
        " .\n",
        ": .",
        "\n\n\n",
        "null",
        "More information",
    ):
        assert gap not in card, f"{gap!r} in the card"


def get_snippets(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, flags=re.DOTALL | re.MULTILINE)


def list_paths(content: object) -> list[tuple[str, ...]]:
    """The keys to every entry of nested JSON objects, also of those in lists."""
    if isinstance(content, list):
        inner = {str(place): item for place, item in enumerate(content)}
        return [(place, *rest) for place in inner for rest in list_paths(inner[place])]
    if not isinstance(content, dict):
        return []
    return [(key, *rest) for key in content for rest in ((), *list_paths(content[key]))]
