"""Names that users or strangers chose, of labels, files and folders, as the text that they are, in each format.

Labels come from columns of tables and from names of folders, and both may hold anything: line breaks, Markdown, HTML, the
signs with which a spreadsheet's formulas begin. One function for each kind of place; whoever writes a name there calls it.
"""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterable

# Besides the control characters: line breaks of categories of their own, what turns the direction of the text that follows
# (Unicode Standard Annex #9), and what is not seen at all. Joiners stay: some scripts and many emoji need them.
ESCAPED = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\ufeff"
MOST_NAMES = 3  # in a sentence
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # OWASP, "CSV Injection"


def in_one_line(text: str) -> str:
    """Write a name without what would break a line or a column, be obeyed by a terminal, or hide: these become escapes.

    For a line of text, on a terminal or in a file, and a column between tabs. Bytes of a file's name that are not valid
    in its encoding stay as Python stands in for them.

    Args:
        text (`str`): a label, or the name of a file, folder or data set.

    Returns:
        The name in one line.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) == "Cc" or character in ESCAPED
        else character
        for character in text
    )


def in_short(names: Iterable[str]) -> str:
    """Write the first of several names into a sentence.

    Args:
        names (iterable of `str`): labels, or names of files.

    Returns:
        `MOST_NAMES` of them, quoted and each in one line, and how many more there are.
    """
    names = list(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(repr(in_one_line(name)) for name in names[:MOST_NAMES]) + more


def storable(text: str) -> str:
    """Write a name in one line that can be encoded as UTF-8: bytes that never were text become escapes too.

    Args:
        text (`str`): see [`in_one_line`].

    Returns:
        The name in one line.
    """
    return in_one_line(text).encode("utf-8", "backslashreplace").decode("utf-8")


def markdown_code(text: str) -> str:
    """Write a name as Markdown code, also with backticks in it; in a table, `|` is escaped by whoever writes the row.

    Args:
        text (`str`): see [`in_one_line`].

    Returns:
        A code span.

    Source: CommonMark 0.31.2, section 6.1 (code spans).
    """
    text = storable(text)
    if text and "`" not in text and text == text.strip():
        return f"`{text}`"
    # Of each side one space is taken off again, unless there is nothing but spaces.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if text.strip() else f"{fence}{text or ' '}{fence}"


def markdown_text(text: str) -> str:
    """Write a name or sentence within a line of Markdown or of its tables: no markup, HTML, link, mention or formula of
    its own.

    Args:
        text (`str`): a name, or a sentence with names.

    Returns:
        Markdown that shows the text as it is.

    Source: CommonMark 0.31.2, section 2.5 (character references), and GitHub Flavored Markdown for tables and links.
    """
    # Markup is made of these, and of `_` at the ends of words. A character reference is text in CommonMark, whatever stands
    # around it, and no `|` of a table.
    text = re.sub(r"[\\`*\[\]<>&|~$@#]|(?<![^\W_])_|_(?![^\W_])", _reference, storable(text))
    text = re.sub(r"(?i)(?<=http)s?:(?=//)|(?<=www)\.", _reference, text)  # GitHub makes links of bare addresses
    text = re.sub(r"^(\d{1,9})([.)])(?=\s|$)", lambda found: found[1] + f"&#{ord(found[2])};", text)  # of a list
    return re.sub(r"^(?:[-+=]|\s+)|\s+$", _reference, text)


def _reference(found: re.Match) -> str:
    return "".join(f"&#{ord(character)};" for character in found[0])


def markdown_block(text: str, language: str = "") -> str:
    """Write code as a fenced block, also with fences in it.

    Args:
        text (`str`): the code, of several lines.
        language (`str`, defaults to `""`): for highlighting.

    Returns:
        The block, without a last line end.

    Source: CommonMark 0.31.2, section 4.5 (fenced code blocks).
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def html_text(text: str) -> str:
    """Write a name in HTML, between tags or as the value of an attribute in quotes.

    Args:
        text (`str`): see [`in_one_line`].

    Returns:
        The escaped name.
    """
    return html.escape(storable(text))


def csv_row(cells: Iterable[object]) -> str:
    """Write a row of a CSV file; a cell with whatever line break is in quotes.

    Args:
        cells (iterable): names, and numbers as they are to be written.

    Returns:
        The row, without its line end.

    Source: RFC 4180.
    """
    line = io.StringIO(newline="")
    # Cells are quoted if they hold a character of the line's end, among others, whatever that is in the file.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n")


def spreadsheet_safe(text: str) -> str:
    """Write a cell that no spreadsheet takes for a formula: an apostrophe is put before what begins like one.

    Args:
        text (`str`): a name; numbers are left as they are.

    Returns:
        The cell.

    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def selection_table_cell(text: str) -> str:
    """Write a column of a tab-separated table that Raven, which knows no quotes, reads as pandas does.

    Args:
        text (`str`): see [`in_one_line`].

    Returns:
        The column.
    """
    text = in_one_line(text)
    # Only there do readers of such tables take a quote for the begin of a quoted cell.
    return '"' + text.replace('"', '""') + '"' if text.startswith('"') else text
