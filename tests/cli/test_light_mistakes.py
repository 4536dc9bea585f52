"""A mistake is answered before anything slow is imported: which modules are there, not how long."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ROOT

SLOW = ("torch", "torchvision", "numpy", "matplotlib", "scipy", "PIL")

MISTAKES = [  # words of the command line, and a part of the answer
    ("--image no.png", "no image at no.png"),
    ("--image a.png --image-root .", "--image-root is for"),
    ("--image @no.txt", "cannot read the list no.txt"),
    ("--image bad.json", "bad.json is not JSON"),
    ("--weights no.pth", "no checkpoint at no.pth"),
    ("--weights detr-r50-e632da11.pth", "give --weights detr_resnet50"),
    ("--weights https://huggingface.co/facebook/detr-resnet-50", "hf:facebook/detr-resnet-50"),
    ("--weights hf:nobody", "is not hf:owner/name"),
    ("--weights page.pth", "page.pth is a web page"),
    ("--weights pointer.pth", "run git lfs pull"),
    ("--weights empty.pth", "is empty"),
    ("--weights names.txt", "is a text file"),
    ("--weights detr_resnet50 --type cd_detr", "leave --type out"),
    ("--weights page.pth detr_resnet50", "page.pth is a web page"),
    ("--type yolo", "unknown model type 'yolo'"),
    ("--type detr cd_detr detr --weights a b", "--type has 3 and --weights 2"),
    ("--plot heads", "invalid choice: 'heads'"),
    ("--plot all content", "stands alone"),
    ("--plot terms --style contour", "terms have no contours"),
    ("--terms cq+pk", "terms are sums"),
    ("--style contuor", "did you mean contour?"),
    ("--norm no", "invalid choice"),
    ("--layer 3-0", "is not last, all"),
    ("--heads 0,0", "are not heads"),
    ("--level x", "'x' are not levels"),
    ("--level al", "did you mean all?"),
    ("--level 0,0", "are not levels"),
    ("--level sum,0", "are not levels"),
    ("--level -1", "--level"),
    ("--level , ", "are not levels"),
    ("--level", "expected at least one argument"),
    ("--level 12345", "are not levels"),
    ("--level all --attention encoder", "--level is not for --attention encoder"),
    ("--level 0 --rollout", "--level is not for --rollout"),
    ("--level 1 --ablate content", "leave --level out"),
    ("--level all --plot terms", "leave --level out"),
    ("--heads all-in-one --style heat", "style heat draws none: take style points"),
    ("--heads all-in-one,0", "are not heads"),
    ("--heads all-in-oen", "did you mean all-in-one?"),
    ("--heads all-in-one mean", "are not heads"),
    ("--heads all-in-one --attention encoder", "--heads all-in-one is not for --attention encoder"),
    ("--heads all-in-one --ablate content", "--heads all-in-one is not for --ablate"),
    ("--heads all-in-one --norm head", "says nothing about points"),
    ("--style points --ablate content", "leave --style points out"),
    ("--queries tpo:3", "did you mean top?"),
    ("--queries class:cta --classes names.txt", "did you mean cat?"),
    ("--classes no.txt", "no class file"),
    ("--format pgn", "did you mean png?"),
    ("--out a.bmp", "the suffix must be one of"),
    ("--out names.txt/x/", "names.txt is a file, not a folder"),
    ("--out names.txt/a.png", "names.txt is a file, not a folder"),
    ("--ablate legs", "cannot be removed"),
    ("--points 3", "is not a point"),
    ("--width 3ft", "is not a width"),
    ("--shard 4/4", "is not a part"),
    ("--wieghts x", "did you mean --weights?"),
    ("--rollout --faithfulness", "one at a time"),
    ("rendre", "did you mean render?"),
    ("record --out names.txt", "names.txt is a file"),
    ("record --out new --image no.png", "no image at no.png"),
    ("record --out new --weights no.pth", "no checkpoint at no.pth"),
    ("record --out new --store flaot16", "did you mean float16?"),
    ("atlas --out names.txt", "is a file: give a folder"),
    ("atlas --image no.png", "no image at no.png"),
    ("atlas --weights page.pth", "is a web page"),
    ("check nowhere", "no file or folder nowhere"),
    ("check empty", "no baselines"),
    ("check kept --only other", "no baseline is called 'other'"),
    ("check kept --report a.txt", "is no .html file"),
    ("check kept --root nowhere", "--root nowhere is not a folder"),
    ("update nowhere", "no file or folder nowhere"),
    ("compare a b", "no file or folder 'a'"),
    ("compare a.png kept", "give two files or two folders"),
]

_PROGRAM = """
import contextlib, io, json, sys
from detr_viz.cli import main
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words.split())
        except SystemExit as stop:
            code = stop.code
    slow = [name for name in sys.argv[2].split() if name in sys.modules]
    print(json.dumps([words, code, out.getvalue(), err.getvalue(), slow]))
"""


def test_no_mistake_imports_anything_slow(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "names.txt").write_text("cat\nremote\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/one.npz").touch()
    before = sorted(tmp_path.rglob("*"))
    argv = [json.dumps([words for words, _ in MISTAKES]), " ".join(SLOW)]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *argv],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(MISTAKES)
    for (words, part), (asked, code, out, err, slow) in zip(MISTAKES, answers, strict=True):
        assert (asked, code, out) == (words, 2, ""), (words, code, out, err)
        assert part in err and err.startswith("error: ") and err.count("\n") == 1, (words, err)
        assert not slow, (words, slow)
    assert sorted(tmp_path.rglob("*")) == before  # and writes nothing
