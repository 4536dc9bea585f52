"""No run replaces a file that other settings drew without a word; and formats for print."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from detr_viz import cli
from detr_viz.demo.shapes import scene


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(2_000_000_100, 96).rgb).save("a.png")

    def run(*flags: str) -> list[str]:
        assert cli.main(["--image", "a.png", "--queries", "top:1", "--dpi", "60", *flags]) == 0
        out, err = capsys.readouterr()
        assert "error" not in err
        return [line for line in out.splitlines() if line.startswith(("wrote", "replaced"))]

    return run


def test_a_default_file_of_other_settings_is_replaced_with_a_line(run):
    file = "outputs/a_detr_combine.png"
    wrote, replaced = f"wrote {file}", f"replaced {file}, which was drawn with other settings"
    assert run() == [wrote]
    assert run() == [wrote]  # the same settings
    assert run("--norm", "head") == [replaced, wrote]
    assert run("--norm", "head", "--scale", "layer") == [replaced, wrote]
    assert run("--type", "cd_detr") == ["wrote outputs/a_cd_detr_combine.png"]  # another name
    Image.new("RGB", (3, 3)).save(file)  # of another program
    assert run() == [replaced, wrote]


def test_a_batch_counts_what_it_replaces(run):
    run()
    wrote = "wrote 1 file for 1 image; outputs/index.csv lists them"
    again = run("--jobs", "1", "--norm", "head")
    assert again == [wrote, "replaced 1 file that was drawn with other settings"]
    again = run("--jobs", "1", "--resume")
    assert again == [wrote, "replaced 1 file that was drawn with other settings"]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "tif", "tiff"])
def test_pixels_for_print(run, suffix):
    """The pixels of the PNG, its resolution and its facts."""
    run("--out", f"f.{suffix}")
    run("--out", "f.png")
    with Image.open(f"f.{suffix}") as print_file, Image.open("f.png") as png:
        assert print_file.format == {"j": "JPEG", "t": "TIFF"}[suffix[0]]
        assert print_file.mode == "RGB"
        assert print_file.info["dpi"] == pytest.approx((60, 60), abs=0.01)
        far = np.abs(np.asarray(print_file, int) - np.asarray(png, int))
        if suffix[0] == "j":
            assert far.mean() < 1.5 and get_sampling(print_file) == 0  # colours as fine as light
        else:
            assert not far.any()
        facts = [png.text["Description"], png.text["Recipe"]]
        data = Path(f"f.{suffix}").read_bytes()
        assert all(fact.encode() in data for fact in facts)
        assert print_file.getexif()[0x0131] == png.text["Software"]


def test_eps_has_opaque_pixels_real_text_and_its_facts(run):
    run("--attention", "decoder", "--dpi", "60", "--out", "f.eps")
    run("--attention", "decoder", "--out", "f.png")
    eps = Path("f.eps").read_text(encoding="latin-1")
    with Image.open("f.png") as png:
        wide, high = (side / 60 * 72 for side in png.size)
        assert f"Recipe: {png.text['Recipe']}" in eps
        assert f"%%Title: {png.text['Title']}" in eps
    box = eps.split("%%HiResBoundingBox:")[1].split()[:4]
    assert [float(x) for x in box] == pytest.approx([0, 0, wide, high], abs=1)
    assert eps.startswith("%!PS-Adobe-3.0 EPSF") and "CreationDate" not in eps
    assert eps.count("colorimage") <= 2 and "glyphshow" in eps  # one picture, and text
    assert all(
        len(line) <= 255 for line in eps.split("%%EndProlog")[0].split("\n") if line[:1] == "%"
    )
