"""Every public function says what it takes: `ruff` holds those with a section `Args`, this file those without one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_ast", "model_card", "conversion", "finetune", "pretraining")


def public_functions(body: list[ast.stmt]) -> list[ast.FunctionDef]:
    """Functions of a module and methods of its classes whose names begin with no underscore."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += public_functions(node.body)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            found.append(node)
    return found


def untold(function: ast.FunctionDef) -> list[str]:
    """Parameters of which the section `Args` says nothing; without a docstring, the function itself."""
    docstring = ast.get_docstring(function)
    if not docstring:
        return [function.name]
    if re.match(rf"See \[?`\w+\.{function.name}`", docstring):  # a hook, whose base says what it takes
        return []
    told = docstring.partition("Args:")[2]
    taken = function.args
    parameters = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
    names = [parameter.arg for parameter in parameters if parameter and parameter.arg not in ("self", "cls")]
    return [name for name in names if not name.startswith("_") and not re.search(rf"\b{name}\b", told)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_says_what_it_takes(package):
    functions = [
        (path, function)
        for path in sorted((ROOT / package).rglob("*.py"))
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8")).body)
    ]
    assert len(functions) > 10
    lacking = [
        f"{path.relative_to(ROOT)}: {function.name}: {', '.join(untold(function))}"
        for path, function in functions
        if untold(function)
    ]
    assert not lacking, "\n".join(lacking)
