"""Class files of every kind that people have: the names by id, or one line, never plain lines."""

from __future__ import annotations

import json

import pytest

from detr_viz.detections.labels import LabelError, read_class_file

THREE = ("helmet", "head", "person")
FROM_ONE = ("N/A", *THREE)
GAPS = ("N/A", "helmet", "N/A", "head", "N/A", "person")
CATEGORIES = [
    {"id": i, "name": n, "supercategory": "x"} for i, n in zip((1, 3, 5), THREE, strict=True)
]
BOX = {"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 1, 1]}
PICTURE = {"id": 2, "file_name": "a.jpg", "coco_url": "http://h/a.jpg"}
COCO = {"images": [PICTURE], "annotations": [BOX], "categories": CATEGORIES}
LVIS = {**COCO, "categories": [{**one, "synset": "a.n.01"} for one in CATEGORIES]}
ID2LABEL = {str(i): name for i, name in enumerate(THREE)}
LABEL2ID = {name: i for i, name in enumerate(THREE)}
DATA_YAML = """# my data
path: ../data  # a folder
train: images/train
nc: 3

{names}
download: |
  names: [not, these]
"""


def yaml(names: str) -> str:
    return DATA_YAML.format(names=names)


KINDS = [
    ("a.json", json.dumps(COCO), GAPS, "COCO categories"),
    ("a.json", json.dumps(COCO, indent=1), GAPS, "COCO categories"),
    ("a.json", json.dumps(CATEGORIES[::-1]), GAPS, "COCO categories"),
    ("a.txt", json.dumps(COCO), GAPS, "COCO categories"),
    ("a.json", json.dumps(LVIS), GAPS, "LVIS categories"),
    ("a.json", json.dumps(ID2LABEL), THREE, "id2label"),
    ("a.json", json.dumps({"5": "person", "1": "helmet", "3": "head"}), GAPS, "id2label"),
    ("config.json", json.dumps({"d_model": 1, "id2label": ID2LABEL}), THREE, "id2label"),
    ("a.json", json.dumps({"label2id": LABEL2ID, "id2label": None}), THREE, "label2id"),
    ("a.json", json.dumps(LABEL2ID), THREE, "label2id"),
    ("a.json", json.dumps({"head": "1", "helmet": "0", "person": "2"}), THREE, "label2id"),
    ("a.json", '[\n "N/A", "helmet",\n "head", "person"\n]\n', FROM_ONE, "a JSON list"),
    ("a.txt", '["helmet", "head", "person"]', THREE, "a JSON list"),
    ("a.json", '[null, "helmet", " head", "per\\u0073on"]', FROM_ONE, "a JSON list"),
    ("a.json", json.dumps({"names": [*THREE]}), THREE, '"names" of a JSON file'),
    ("a.yaml", yaml("names: [helmet, head, person]"), THREE, "data.yaml"),
    ("a.yml", yaml("names: ['helmet', \"head\", person]  # three"), THREE, "data.yaml"),
    ("a.yaml", yaml("names: [ 'helmet', # one\n    head,\n  person ]"), THREE, "data.yaml"),
    ("a.yaml", yaml("names:\n- helmet\n- 'head'\n- person # big"), THREE, "data.yaml"),
    ("a.yaml", yaml("names:\n  # ids\n  - helmet\n\n  - head\n  - person"), THREE, "data.yaml"),
    ("a.yaml", yaml("names:\n  0: helmet\n  1: head  # one\n  '2': person"), THREE, "data.yaml"),
    ("a.yaml", yaml("names:\n    5: person\n    1: helmet\n    3: head"), GAPS, "data.yaml"),
    ("a.yaml", yaml("names: {0: helmet, 1: head,\n  2: 'person'}"), THREE, "data.yaml"),
    ("a.txt", "nc: 3\nnames: [helmet, head, person]\n", THREE, "data.yaml"),
    ("a.txt", "names:\n  0: helmet\n  1: head\n  2: person\n", THREE, "data.yaml"),
    ("a.csv", "id,name\n1,helmet\n3,head\n5,person\n", GAPS, "lines of ids and names"),
    ("a.txt", "0: helmet\n1: head\n2: person\n", THREE, "lines of ids and names"),
    ("a.txt", "0 helmet\n1 head\n2 person\n", THREE, "lines of ids and names"),
    ("a.txt", "helmet,0\nhead,1\nperson,2\n", THREE, "lines of ids and names"),
    ("a.txt", "class 0\nclass 1\nclass 2\n", ("class 0", "class 1", "class 2"), "lines"),
    ("a.txt", "- helmet\n- head\n- person\n", THREE, "a list of lines"),
    ("a.txt", "'helmet',\n'head',\n'person'\n", THREE, "lines in quotes"),
    ("a.csv", "class\nhelmet\nhead\nperson\n", THREE, "a column of names"),
    ("a.txt", "# helmets\nhelmet\n#\nhead\nperson", THREE, "lines"),
    ("a.names", "helmet\nhead\nperson", THREE, "lines"),
]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("file", "text", "names", "kind"), KINDS)
def test_each_kind_gives_names_by_id(tmp_path, file, text, names, kind, ends):
    for start, end in (("", ""), ("\ufeff", ends * 3)):
        (tmp_path / file).write_bytes((start + text.replace("\n", ends) + end).encode())
        found = read_class_file(tmp_path / file)
        assert found.names == names
        assert found.kind.endswith(kind)
        assert found.note == ("" if kind == "lines" else f"3 class names from {found.kind}")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("it''s", "it''s"),
        ("'it''s #1, a [b]'", "it's #1, a [b]"),
        ('"a \\"b\\" #c"', 'a "b" #c'),
        ('"\\u00e9t\\u00e9"', "été"),
        ("C#", "C#"),
        ("air-conditioner/fan (old)", "air-conditioner/fan (old)"),
        ("traffic light   # red", "traffic light"),
        ("12", "12"),
        ("-1", "-1"),
    ],
)
def test_names_in_yaml_mean_what_yaml_says(tmp_path, form, name):
    forms = (
        f"[x, {form}\n]",
        f"\n- x\n- {form}",
        f"\n  0: x\n  1: {form}",
        f"{{0: x, 1: {form}\n}}",
    )
    parser = pytest.importorskip("yaml")
    for shape in forms:
        text = f"names: {shape}\n"
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        theirs = parser.safe_load(text)["names"]
        assert str(theirs[1]) == name
        assert read_class_file(tmp_path / "a.yaml").names == ("x", name)


REFUSED = [
    ("a.json", '{"0": "cat", "1": "dog"', "like JSON and is not ("),
    ("a.txt", '[\n"cat",\n"dog",\n]', "like JSON and is not ("),
    ("a.txt", "['cat', 'dog']", "like JSON and is not ("),
    ("a.json", "cat\ndog\n", "like JSON and is not ("),
    ("a.json", "[" * 100_000, "like JSON and is not ("),
    ("a.json", '{"0": "cat", "0": "dog"}', "the key '0' stands twice"),
    ("a.json", "{}", "without names of classes"),
    ("a.json", "3", "without names of classes"),
    ("a.json", '{"images": [], "annotations": []}', "without names of classes"),
    ("a.json", "[]", "not of names"),
    ("a.json", "[1, 2]", "not of names"),
    ("a.json", '["cat", ["dog"]]', "not of names"),
    ("a.json", '{"categories": []}', 'no list of "categories"'),
    ("a.json", '{"categories": [{"id": 1, "name": "cat"}, {"name": "dog"}]}', "categories[1]"),
    ("a.json", '[{"id": 1, "name": "cat"}, {"id": true, "name": "dog"}]', "categories[1]"),
    ("a.json", '[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]', "two names for the id 1"),
    ("a.json", '[{"id": -1, "name": "cat"}]', "the class id -1"),
    ("a.json", '{"999999999": "cat"}', "the class id 999999999"),
    ("a.json", '["a\\u001bb"]', "control characters"),
    ("a.yaml", "nc: 3\ntrain: x\n", "no `names:`"),
    ("a.yaml", "names: [a]\nnames: [b]\n", "several `names:`"),
    ("a.yaml", "names: coco.names\n", "`names: coco.names`, which is no list"),
    ("a.yaml", "names: &x\n  - a\n", "which is no list"),
    ("a.yaml", "names: [cat, dog\nnc: 2\n", "a line "),
    ("a.yaml", "names: [cat, [dog]]\n", "a line 1"),
    ("a.yaml", "names: [cat] x\n", "a line 1"),
    ("a.yaml", "names:\n  - cat\n  - *dog\n", "a line 3"),
    ("a.yaml", "names:\n  - cat\n    dog\n", "a line 3"),
    ("a.yaml", "names:\n  - cat\n  0: dog\n", "a line 3"),
    ("a.yaml", "names:\n  0: cat\n  0: dog\n", "the id 0 twice"),
    ("a.yaml", "names:\n  - cat: 3\n", "a line 2"),
    ("a.yaml", "names:\n\t- cat\n", "a line 2"),
    ("a.yaml", "names:\n", "no name under"),
    ("a.yaml", "nc: 3\nnames: [cat, dog]\n", "nc: 3, but has 2 names"),
    ("a.txt", "nc: 2\nnames:\n  cat\n  dog\n", "a line 3"),
    ("a.csv", "id,name\ncat,dog\n", "not of lines `id,name`"),
    ("a.csv", "/m/01,cat\n/m/02,dog\n", "not of lines `id,name`"),
    ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run git lfs pull"),
    ("a.txt", "<!DOCTYPE html>\n<p>404</p>", "a web page"),
    ("a.pbtxt", "item {\n  id: 1\n  name: 'cat'\n}\n", "label map of TensorFlow"),
]


@pytest.mark.parametrize(("file", "text", "words"), REFUSED)
def test_a_damaged_file_is_one_line_and_never_plain_lines(tmp_path, file, text, words):
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(LabelError) as caught:
        read_class_file(tmp_path / file)
    line = str(caught.value)
    assert words in line and str(tmp_path / file) in line
    assert line.isprintable() and len(line) < len(str(tmp_path)) + 300


def test_annotations_of_a_data_set_may_be_large(tmp_path):
    many = {**COCO, "annotations": [{**BOX, "segmentation": [[0.5] * 50]}] * 5000}
    (tmp_path / "a.json").write_text(json.dumps(many))
    assert (tmp_path / "a.json").stat().st_size > 1 << 20
    assert read_class_file(tmp_path / "a.json").names == GAPS
