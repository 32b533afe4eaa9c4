"""Memory that was freed is kept for what comes next, unless the user told glibc what to do."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from modeling_ast.system.freed_memory import LARGEST_KEPT, MOST_KEPT

SIZE, TOGETHER = 24 * 2**20, 3  # together more than glibc keeps by itself, which is twice the largest that was freed
TIMES = 5
PAGES = TOGETHER * SIZE // resource.getpagesize()
CODE = f"""
import resource, sys
{{prepare}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    taken = [b"x" * {SIZE} for _ in range({TOGETHER})]
    del taken
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
COMMAND = "from modeling_ast.system.surroundings import prepare_process; prepare_process('ast-tag')"


@pytest.fixture(autouse=True)
def glibc(monkeypatch):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is another one")
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)


def new_pages(prepare: str, **surroundings: str) -> int:
    """How many pages the system has to fill for a process that takes and frees the same memory again and again."""
    child = subprocess.run(
        [sys.executable, "-c", CODE.format(prepare=prepare)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | surroundings,
    )
    return int(child.stdout)


def test_a_command_fills_pages_once():
    assert SIZE < LARGEST_KEPT
    assert TOGETHER * SIZE < MOST_KEPT
    assert new_pages("") > 0.7 * TIMES * PAGES
    assert new_pages(COMMAND) < 1.5 * PAGES


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072")],
)
def test_what_the_user_told_glibc_stands(name, value):
    assert new_pages(COMMAND, **{name: value}) > 0.7 * TIMES * PAGES


@pytest.mark.parametrize("library", ["without mallopt", "not glibc", "none"])
def test_other_libraries_are_left_alone(monkeypatch, library):
    from modeling_ast.system import freed_memory

    class Library:
        def __getattr__(self, name):
            if library == "not glibc" and name == "mallopt":
                return lambda *args: pytest.fail("another library's mallopt was called")
            raise AttributeError(name)

    def load(name):
        if library == "none":
            raise TypeError("a name is wanted")  # on Windows
        return Library()

    monkeypatch.setattr(freed_memory.ctypes, "CDLL", load)
    assert freed_memory.keep_freed_memory() is False
