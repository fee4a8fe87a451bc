"""What no file of the project may do: run what somebody else wrote, or unpack what could."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = frozenset({"pickle", "cPickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"})
CALLS = frozenset({"eval", "exec", "os.system", "os.popen", "torch.load", "yaml.load", "subprocess.getoutput"})
# Keyword arguments that may not be true.
FLAGS = frozenset({"shell", "trust_remote_code", "allow_pickle"})


def _files() -> list[Path]:
    """Every source file of the project, tests included; not what is installed beside it."""
    packages = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()]
    return sorted(path for package in packages for path in package.rglob("*.py"))


def _name(node: ast.expr) -> str:
    """`os.system` of the expression that says so."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden(source: str) -> Iterator[str]:
    """What a source does that it may not, with the line."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in MODULES)
        yield from (f"{node.lineno}: imports {name}" for name in names if name in CALLS)
        if isinstance(node, ast.Call):
            called = _name(node.func)
            if called in CALLS:
                yield f"{node.lineno}: calls {called}"
            for keyword in node.keywords:
                is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in FLAGS and not is_off:
                    yield f"{node.lineno}: {keyword.arg} is not False"


def test_no_file_runs_what_others_wrote() -> None:
    """No pickle in any form, no torch.load, eval, exec or shell, and no remote code, in any file."""
    files = _files()
    assert len(files) > 200
    found = [f"{path.relative_to(ROOT)}:{what}" for path in files for what in forbidden(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import loads",
        "from dill.source import getsource",
        "from torch import load",
        "import torch\ntorch.load('x')",
        "eval('1')",
        "exec('1')",
        "import os\nos.system('x')",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.run('x', shell=flag)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
    ],
)
def test_each_of_them_is_seen(source: str) -> None:
    """The search finds every way that it looks for."""
    assert list(forbidden(source))


def test_what_is_switched_off_is_allowed() -> None:
    """Saying no to them is no fault, nor is a method of that name: `model.eval()`."""
    assert not list(forbidden("model.eval()\nload('x', trust_remote_code=False)\nrun(['x'], shell=False)"))
