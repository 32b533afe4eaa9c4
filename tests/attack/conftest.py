"""At the end of a run: what each attack has shown, in figures."""

import pytest

HEAD = "what the attacks have shown"


@pytest.fixture
def show_figures(record_property):
    """Have a line printed at the end, under the name of its attack, whichever process ran the test."""

    def show(attack: str, line: str):
        record_property(HEAD, [attack, line])

    return show


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Where all attacks are left out, what they import, Gradio first, is not imported either."""
    return True if "not attack" in config.option.markexpr else None


def pytest_terminal_summary(terminalreporter):
    shown: dict[str, list[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":  # which has what all of the test recorded
            for attack, line in (value for name, value in report.user_properties if name == HEAD):
                shown.setdefault(attack, []).append(line)
    if shown:
        terminalreporter.section(HEAD)
    for attack, lines in shown.items():
        terminalreporter.write_line(attack)
        for line in lines:
            terminalreporter.write_line(f"  {line}")
