"""Files of labels as people and spreadsheets write them; none is ever overwritten."""

from __future__ import annotations

import numpy as np
import pytest

from rs_models.commands.classify import main as classify_main
from rs_models.commands.suggest import main as suggest_main
from rs_models.errors import UserError
from rs_models.labelling import Index, Labels
from rs_models.labelling.answers import write_rows
from rs_models.labelling.labels import append, holds_labels
from rs_models.settings import run_script
from tests.labelling.test_labelling import pile, table

NAMES = ["a/1.tif", "a/2.tif", "b/1.tif", "b/3.tif"]


@pytest.fixture
def index():
    return Index.of(np.eye(4), names=NAMES)


@pytest.mark.parametrize(
    "content",
    [
        b"tile,label\na/1.tif,road\n3.tif,Stra\xc3\x9fe\n",
        b"\xef\xbb\xbftile;label\r\na/1.tif;road\r\n3.tif;Stra\xc3\x9fe\r\n",
        b"sep=;\r\nFile;Class\r\na/1.tif;road\r\n3.tif;Stra\xc3\x9fe",
        b"class\tnote\trow\nroad\t\ta/1.tif\n\n\t\t\nStra\xc3\x9fe\tx\t3.tif\n",
        b'"tile","label"\n"a/1.tif","road"\n"3.tif"," Stra\xc3\x9fe "\n',
    ],
)
def test_what_spreadsheets_write_is_read_and_goes_on_in_its_way(tmp_path, index, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    labels = Labels.read(path, index)
    assert labels.rows.tolist() == [0, 3] and labels.names == ("Straße", "road")
    append(path, [("a/2.tif", "a;b,c\td")])
    assert path.read_bytes().startswith(content)
    assert Labels.read(path, index).counts() == {"Straße": 1, "a;b,c\td": 1, "road": 1}
    added = path.read_bytes()[len(content) :]
    assert (b"\r\n" in added) == (b"\r\n" in content)


def test_a_row_is_a_name_under_its_own_head_alone(tmp_path, index):
    path = tmp_path / "labels.csv"
    path.write_text("row,label\n0,road\nb/3.tif,lake\n")
    assert Labels.read(path, index).rows.tolist() == [0, 3]
    path.write_text("tile,label\n0,road\n")  # perhaps of another table
    with pytest.raises(UserError, match="line 2: the table has no tile '0'"):
        Labels.read(path, index)


def test_another_encoding_is_told_by_its_line(tmp_path, index):
    path = tmp_path / "labels.csv"
    path.write_bytes("tile,label\na/1.tif,road\n3.tif,Straße\n".encode("cp1252"))
    with pytest.raises(UserError, match="line 3: this is no UTF-8"):
        Labels.read(path, index)
    path.write_bytes("tile,label\na/1.tif,road\n".encode("utf-16"))
    with pytest.raises(UserError, match="line 1: this is no UTF-8"):
        Labels.read(path, index)


def test_lines_that_wait_for_a_class_are_counted_and_files_are_joined(tmp_path, index):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("tile,label\na/1.tif,road\na/2.tif,\n3.tif,lake\n")
    second.write_text("tile,label\na/2.tif,lake\na/1.tif,field\n")
    assert Labels.read(first, index).blank == 1
    both = Labels.read(first, index, str(second))
    assert both.rows.tolist() == [0, 1, 3] and both.counts() == {"field": 1, "lake": 2}


def test_a_name_that_several_tiles_have_is_asked_about(tmp_path, index):
    path = tmp_path / "labels.csv"
    path.write_text("tile,label\n1.tif,road\n")
    with pytest.raises(UserError, match=r"1\.tif may be a/1\.tif, b/1\.tif"):
        Labels.read(path, index)


def test_no_file_with_labels_is_overwritten(tmp_path, index, capsys):
    path = tmp_path / "labels.csv"
    write_rows(path, index, [0, 1], {"label": ["", ""]})
    assert not holds_labels(path)
    write_rows(path, index, [2, 3], {"label": ["", ""]})  # nothing was written into it yet
    path.write_text("tile,label\nb/1.tif,road\nb/3.tif,\n")
    with pytest.raises(UserError, match="never overwritten"):
        write_rows(path, index, [0], {"score": [1]})
    # Answers have labels too, but they are ours, and the same command may be run again.
    answers = tmp_path / "answers.csv"
    for _ in range(2):
        write_rows(answers, index, [0], {"label": ["road"], "best": ["road"]})
    vectors, _ = pile()
    folder = str(table(tmp_path / "t", vectors))
    mine = tmp_path / "mine.csv"
    mine.write_text("tile,label\n0001.tif,a\n0002.tif,b\n")
    before = mine.read_bytes()
    assert run_script(suggest_main, [folder, "--output", str(mine)]) == 2
    other = tmp_path / "other.csv"
    other.write_text("tile,label\n0003.tif,a\n")
    arguments = [folder, "--labels", str(other), "--labels", str(mine), "--output"]
    assert run_script(classify_main, [*arguments, str(mine)]) == 2
    assert "labels" in capsys.readouterr().err and mine.read_bytes() == before
    assert run_script(classify_main, [*arguments, str(tmp_path / "said.csv")]) == 0


def test_the_word_for_doubt_is_no_class(tmp_path, index):
    (tmp_path / "labels.csv").write_text("tile,label\na/1.tif,road\nb/3.tif,unsure\n")
    with pytest.raises(UserError, match="'unsure', which answers say where they doubt"):
        Labels.read(tmp_path / "labels.csv", index)
