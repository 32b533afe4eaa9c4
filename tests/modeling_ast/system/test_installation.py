"""What to type to get an optional part of the kit, for each way in which pip may have installed it."""

import json
import shlex
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modeling_ast.system import installation
from modeling_ast.system.installation import install_command

CHECKOUT = Path(__file__).resolve().parents[3]
REQUIRES = [
    "torch>=2.11",
    'onnx>=1.23.2; extra == "onnx"',
    "onnxscript >=0.7.2 ; extra == 'onnx'",
    'gradio>=6; extra == "demo"',
]


class Installed:
    """A distribution as `importlib.metadata` gives it, with what pip wrote of its origin."""

    requires = REQUIRES

    def __init__(self, origin: dict | None):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin and json.dumps(self.origin)


@pytest.fixture
def installed(monkeypatch):
    def install(origin: dict | None):
        both = [Installed(None), Installed(origin)]  # what lies in a checkout, and what pip installed
        monkeypatch.setattr(installation.importlib.metadata, "distributions", lambda name: both)

    return install


@pytest.mark.parametrize(("editable", "option"), [(True, "-e "), (False, "")])
def test_of_a_folder_it_is_the_folder_and_a_dot_where_one_is_in_it(installed, tmp_path, monkeypatch, editable, option):
    checkout = tmp_path / "my kit"
    checkout.mkdir()
    installed({"url": checkout.as_uri(), "dir_info": {"editable": editable} if editable else {}})
    assert install_command("onnx") == f"pip install {option}'{checkout}[onnx]'"
    monkeypatch.chdir(checkout)
    assert install_command("onnx") == f"pip install {option}'.[onnx]'"
    assert install_command() == f"pip install {option}'.'"


def test_of_a_repository_or_an_archive_it_is_that(installed, tmp_path):
    url, vcs = "https://git.example/kit.git", {"vcs": "git", "commit_id": "c0ffee"}
    installed({"url": url, "vcs_info": vcs})
    assert install_command("peft") == f"pip install 'ast-kit[peft] @ git+{url}@c0ffee'"
    installed({"url": url, "vcs_info": vcs, "subdirectory": "kit"})
    assert install_command("peft").endswith("@c0ffee#subdirectory=kit'")
    wheel = tmp_path / "ast_kit-1-py3-none-any.whl"
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("demo") == f"pip install 'ast-kit[demo] @ {wheel.as_uri()}'"
    requirement = Requirement(shlex.split(install_command("demo"))[-1])
    assert (requirement.name, requirement.extras, requirement.url) == ("ast-kit", {"demo"}, wheel.as_uri())
    wheel.unlink()  # pip could not read it again
    assert install_command("demo") == 'pip install "gradio>=6"'


@pytest.mark.parametrize("origin", [None, {"url": "file:///no/such/folder", "dir_info": {"editable": True}}])
def test_of_an_unknown_origin_the_packages_are_named(installed, origin):
    installed(origin)
    assert shlex.split(install_command("onnx")) == ["pip", "install", "onnx>=1.23.2", "onnxscript >=0.7.2"]
    assert install_command() == 'pip install "torch>=2.11"'


def test_without_an_installation_it_is_this_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(installation.importlib.metadata, "distributions", lambda name: [])
    monkeypatch.chdir(CHECKOUT)
    assert install_command("demo") == "pip install -e '.[demo]'"
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "modeling_ast" / "system" / "installation.py"))
    assert install_command("demo") == "pip install -e '.[demo]' in a checkout of the kit"


def test_no_message_names_an_index_that_has_no_such_package():
    sources = [
        path
        for room in ("modeling_ast", "model_card", "finetune", "conversion", "docs")
        for path in (CHECKOUT / room).rglob("*")
        if path.suffix in (".py", ".md", ".template", ".yaml")
    ]
    assert len(sources) > 100
    for path in sources:
        if path.name != "installation.py":
            assert "pip install 'ast-kit" not in path.read_text(encoding="utf-8"), path
