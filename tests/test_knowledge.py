"""What is found under a name, what a malformed TOML says, and how a user's function is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from toolchain import errors, imports, knowledge
from toolchain.errors import OptionError, ProfileError
from toolchain.imports import call_user_function, import_callable, is_import_spec
from toolchain.knowledge import find_shipped, load_toml, nearest, shipped_names


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pictures(Table):
    kind: Literal["pictures"]
    folder: str
    count: int = 1


class Arrays(Table):
    kind: Literal["arrays"]
    counts: tuple[int, ...]


class Rule(Table):
    op: str
    dtype: Literal["int8", "int16"] = "int8"
    cost: Annotated[float, Field(gt=0)] = 1.0


class Spec(Table):
    source: Annotated[Pictures | Arrays, Field(discriminator="kind")]
    rules: tuple[Rule, ...] = ()
    by_name: dict[str, Rule] = {}


GOOD = '[source]\nkind = "pictures"\nfolder = "x"\n'


def complaint(tmp_path: Path, text: str) -> str:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_toml(path, Spec)
    assert caught.value.exit_code == 4
    return str(caught.value).replace(str(path), "x.toml")


def test_a_toml_becomes_a_frozen_value(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(GOOD + '[[rules]]\nop = "conv2d"\ncost = 2\n[by_name.a]\nop = "add"\n')
    spec = load_toml(path, Spec)
    assert spec.source == Pictures(kind="pictures", folder="x")
    assert spec.rules == (Rule(op="conv2d", cost=2.0),)
    assert spec.by_name["a"].op == "add"
    with pytest.raises(ValueError, match="frozen"):
        spec.rules = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "cuont = 3\n", "x.toml: source.cuont: unknown key, did you mean 'count'?"),
        ("sorce = 1\n" + GOOD, "x.toml: sorce: unknown key, did you mean 'source'?"),
        (GOOD + "zzz = 1\n", "x.toml: source.zzz: unknown key; known here: kind, folder, count"),
        ('[source]\nkind = "pictures"\n', "x.toml: source.folder: this key is missing"),
        ('[source]\nfolder = "x"\n', "x.toml: source.kind: this key is missing"),
        (
            '[source]\nkind = "pictrues"\n',
            "x.toml: source.kind: 'pictrues' is none of pictures, arrays; did you mean 'pictures'?",
        ),
        (GOOD + 'count = "3"\n', "x.toml: source.count: should be a whole number, found '3'"),
        (
            GOOD + '[[rules]]\nop = "a"\n[[rules]]\nop = "b"\ncost = -1\n',
            "x.toml: rules[1].cost: should be greater than 0",
        ),
        (
            GOOD + '[[rules]]\nop = "a"\ndytpe = 1\n',
            "x.toml: rules[0].dytpe: unknown key, did you mean 'dtype'?",
        ),
        (
            GOOD + '[by_name.a]\nop = "a"\ndtype = "int9"\n',
            "x.toml: by_name.a.dtype: 'int9' is none of int8, int16",
        ),
        ("source = 3\n", "x.toml: source: should be a table, found 3"),
        ('[source]\nkind = "arrays"\ncounts = 3\n', "x.toml: source.counts: should be a list, found 3"),
        ("source = \n", "x.toml: not valid TOML: Invalid value (at line 1, column 10)"),
        (
            GOOD + "kind = 'twice'\n",
            "x.toml: not valid TOML: Cannot overwrite a value (at line 4, column 15)",
        ),
    ],
)
def test_a_complaint_names_file_key_path_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    found = complaint(tmp_path, text)
    assert found.startswith(expected)
    assert "to do: " in found


def test_all_wrong_keys_are_told_at_once(tmp_path: Path) -> None:
    found = complaint(tmp_path, '[source]\nkind = "pictures"\ncuont = 3\n[[rules]]\n')
    assert found.splitlines()[:4] == [
        "x.toml: 3 keys do not hold",
        "  - source.folder: this key is missing",
        "  - source.cuont: unknown key, did you mean 'count'?",
        "  - rules[0].op: this key is missing",
    ]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_toml(path, Spec)
    with pytest.raises(OptionError, match="does not exist"):
        load_toml(tmp_path / "none.toml", Spec)


def test_shipped_names_are_found() -> None:
    assert {"mnist", "photos"} <= set(shipped_names("calibration"))
    assert find_shipped("calibration", "mnist").read_text().startswith("summary")


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    with pytest.raises(OptionError) as caught:
        find_shipped("calibration", "mnits")
    assert caught.value.exit_code == 2
    assert caught.value.what == "no sample set is called 'mnits'"
    assert "did you mean 'mnist'?" in str(caught.value.hint)
    assert ", ".join(shipped_names("calibration")) in str(caught.value.hint)


def test_a_users_own_file_works_where_a_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "my_board.toml"
    own.write_text("")
    assert find_shipped("targets", str(own)) == own
    assert find_shipped("targets", "./my_board.toml") == Path("my_board.toml")
    assert find_shipped("targets", "my_board.toml") == Path("my_board.toml")
    with pytest.raises(OptionError, match=r"\./my_board\.toml"):
        find_shipped("targets", "my_board")
    with pytest.raises(OptionError, match=r"did you mean 'my_board\.toml'\?"):
        find_shipped("targets", "./my_baord.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(OptionError, match="is a folder, not a TOML file"):
        find_shipped("targets", "folder.toml")


def test_a_name_means_the_same_whatever_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist.toml").write_text("")
    assert find_shipped("calibration", "mnist").is_absolute()


def test_an_installed_wheel_carries_the_folders_inside_the_package(tmp_path: Path) -> None:
    # The wheel has both `toolchain/knowledge.py` and the folder `toolchain/knowledge/`: the module must win.
    package = tmp_path / "toolchain"
    (package / "knowledge" / "targets").mkdir(parents=True)
    (package / "knowledge" / "targets" / "inside.toml").write_text("")
    (package / "__init__.py").write_text("")
    for module in (errors, knowledge, imports):
        shutil.copy(str(module.__file__), package)
    code = "from toolchain.knowledge import shipped_names; print(shipped_names('targets'))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "('inside',)"


def test_nearest_looks_past_letter_case_and_gives_up_on_the_unlike() -> None:
    assert nearest("ARM46", ["arm64", "ethos-u55"]) == "arm64"
    assert nearest("zzz", ["arm64"]) is None


# --- package.module:function -------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, which is on no path yet."""
    name = f"users_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "VALUE = 3\n"
        "def build():\n    return 7\n"
        "class Maker:\n    @staticmethod\n    def build():\n        return 8\n"
        "def fails():\n    table = {}\n    return table['weights']\n"
        "def leaves():\n    raise SystemExit(3)\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("x = 1\nimport no_such_library\n")
    (tmp_path / f"{name}_typo.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    return name


def test_a_function_is_imported_from_the_current_directory(module: str) -> None:
    assert import_callable(f"{module}:build", what="model")() == 7
    assert import_callable(f"{module}:Maker.build", what="model")() == 8


@pytest.mark.parametrize(
    ("spec", "what", "remedy"),
    [
        ("{}:biuld", "model: {} has no 'biuld'", "did you mean 'build'?"),
        ("{}:VALUE", "model: {}:VALUE is an int, not a function", "takes no arguments"),
        ("no_such_module_here:f", "model: there is no module 'no_such_module_here'", "run from the folder"),
        ("{}.inner:f", "model: there is no module '{}.inner'", "run from the folder that holds {}"),
        (
            "{}_broken:f",
            "model: importing {}_broken raised ModuleNotFoundError: No module named 'no_such_library'",
            "",
        ),
        ("{}_typo:f", "model: importing {}_typo raised SyntaxError", "python -c 'import {}_typo'"),
        ("no colon", "model 'no colon' is not of the form package.module:function", ""),
    ],
)
def test_an_import_that_fails_is_one_message(module: str, spec: str, what: str, remedy: str) -> None:
    with pytest.raises(OptionError) as caught:
        import_callable(spec.format(module), what="model")
    assert caught.value.what.startswith(what.format(module))
    assert remedy.format(module) in str(caught.value)


def test_the_line_that_fails_is_named(module: str) -> None:
    with pytest.raises(OptionError) as caught:
        import_callable(f"{module}_broken:f", what="model")
    assert str(caught.value.where).endswith(f"{module}_broken.py:2")
    function = import_callable(f"{module}:fails", what="model")
    with pytest.raises(OptionError) as caught:
        call_user_function(function, what="model", spec=f"{module}:fails")
    assert caught.value.what == f"model: {module}:fails raised KeyError: 'weights'"
    assert str(caught.value.where).endswith(f"{module}.py:10")
    function = import_callable(f"{module}:leaves", what="model")
    with pytest.raises(OptionError, match="raised SystemExit: 3"):
        call_user_function(function, what="model", spec=f"{module}:leaves")


def test_own_errors_pass_through() -> None:
    def refuse() -> None:
        raise ProfileError("as it was")

    with pytest.raises(ProfileError, match="as it was"):
        call_user_function(refuse, what="model", spec="x:refuse")


def test_import_specs_are_told_from_paths() -> None:
    assert is_import_spec("a.b:c") and is_import_spec("a:b.c")
    assert not any(map(is_import_spec, ("C:\\x", "a.b", "./a:b", "a:b:c", "a-b:c", ":c", "a:")))
