"""Every configuration's YAML goes through one reader: faults have a place, nothing takes long, no pipe is opened."""

import io
import os
import resource

import pytest
import yaml

from palettizer import _yaml, coreml

READERS = [coreml.OptimizationConfig.from_yaml]
try:
    from palettizer.torch.palettization import DKMPalettizerConfig, PostTrainingPalettizerConfig
    READERS += [DKMPalettizerConfig.from_yaml, PostTrainingPalettizerConfig.from_yaml]
except ImportError:
    pass

FAULTS = [
    ("a: 1\nb: [1, 2\nc: 3", "line 3 column 2"),
    ("a: 1\n b: 3", "line 2 column 3"),
    ('a: 1\nb: "x', "line 2 column 4"),
    ("a:\n\tb: 1", "line 2 column 2"),
    ("a: 1\n---\nb: 2", "more than one document in the file at line 2 column 1"),
    ("a: !!python/object/apply:os.system ['true']", "unknown tag"),
    ("[" * 100_000, "32 levels of nesting"),
    ("a: &a [x]\n" + "".join(f"b{i}: &b{i} [{', '.join(['*a' if i == 0 else f'*b{i - 1}'] * 10)}]\n" for i in range(9)),
     "500000 values"),
    (" " * (1 << 20) + "x", "1048576 bytes"),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("text, words", FAULTS, ids=range(len(FAULTS)))
def test_faults_have_a_place(read, text, words, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    for source in (str(path), path, io.StringIO(text), io.BytesIO(text.encode())):
        with pytest.raises(ValueError, match=words):
            read(source)
    with pytest.raises(ValueError, match=str(path)):
        read(path)


@pytest.mark.parametrize("text", ["{[}]", "a: b: c", "'", "&a *a", "!!map x", "\x00", "é: [\x1b"])
def test_what_is_no_yaml_to_pyyaml_is_none_here(text):
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(text)
    with pytest.raises(ValueError, match="YAML"):
        _yaml.load(io.StringIO(text))


@pytest.mark.parametrize("text", [
    "", "~", "a: 1", "[a, 'b', \"c\\n\"]", "a: {b: [1, 2.5, -3, 0x1F], c: yes, d: off}", "a: |\n  x\n  y\n", "a: >\n  x\n  y\n",
    "a: &x {b: 1}\nc: {<<: *x, d: 2}", "a: &x [1]\nb: *x", "- a\n-\n  - b\n  - {c: d}\n", "a: !!str 1", "# only\n", "a: 'it''s'",
    "\ufeffa: 1", "'on': On", "a: null\nb: Null\nc:\n", "a: .5\nb: 1.5e+3",
])
def test_the_same_as_pyyaml(text, tmp_path):
    expected = yaml.safe_load(text)
    assert _yaml.load(io.StringIO(text)) == expected
    assert _yaml.load(io.BytesIO(text.encode())) == expected
    (tmp_path / "c").write_text(text)
    assert _yaml.load(tmp_path / "c") == expected


def test_numbers_are_those_of_yaml_1_2():
    """PyYAML reads 1.1: octal numbers, digits grouped by `_`, and no exponent without a dot."""
    text = "[010, 1_000, 1e3, 0o17, yes, off]"
    assert _yaml.load(io.StringIO(text)) == ["010", "1_000", 1000.0, 15, True, False]
    assert yaml.safe_load(text) == [8, 1000, "1e3", "0o17", True, False]


@pytest.mark.parametrize("read", READERS)
def test_pipes_are_not_opened(read, tmp_path):
    os.mkfifo(tmp_path / "config.yaml")
    for path, words in [(tmp_path / "config.yaml", "found a pipe"), ("/dev/zero", "found a device"), (tmp_path, "found a folder")]:
        with pytest.raises(OSError, match=words):
            read(path)


def test_a_megabyte_takes_no_time():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for piece in ("[", "{", "- ", "a: ", "? ", "[a,", "{'a':", '"', "'", "# a\n", "\t", "x ", "- &a a\n"):
        try:
            _yaml.load(io.StringIO(piece * ((1 << 20) // len(piece))))
        except ValueError as error:
            assert "YAML" in str(error) or "more than" in str(error)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 60
