"""An RT-DETR R18 of transformers at 640 x 640, random weights, float32, CPU. Medians of interleaved
pairs:

last layer  its forward pass with the last layer's attention captured / without
all sites   the same of all sites of all layers
checked     the last layer captured and proved by the self-check / without
memory      what the capture of all sites adds to the peak of the resident set, MB
again       explain(model, ...) of a model that was explained before / the first time

python tests/benchmarks/adapters.py [pairs]
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = map(str, (HERE, HERE.parent, HERE.parent.parent))

import numpy as np
import torch
from ratios import clean_seconds, in_pairs, keep, peak, print_peak

from detr_viz import explain
from detr_viz.adapters.run import run
from detr_viz.adapters.transformers_models import detector_of
from detr_viz.explanation.capture import record

RATIOS = {
    "attached RT-DETR R18: capture of the last layer": "<= 1.05",
    "attached RT-DETR R18: capture of all sites": "",
    "attached RT-DETR R18: last layer captured and checked": "",
    "attached RT-DETR R18: MB that all sites add": "<= 80",
    "attached RT-DETR R18: explained again / the first time": "",
}
RGB = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)


def processor(images, return_tensors="pt"):
    """As RT-DETR's: 640 x 640, stretched, in [0, 1]."""
    pixels = torch.from_numpy(np.array(images.resize((640, 640)))).permute(2, 0, 1)
    return {"pixel_values": pixels[None].float() / 255}


def model() -> torch.nn.Module:
    """RT-DETR with its R18 backbone, as released: three decoder layers."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        layer_type="basic",
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        embedding_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    torch.manual_seed(0)
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[128, 256, 512], decoder_layers=3
    )
    return RTDetrForObjectDetection(config).eval()


def main() -> None:
    warnings.simplefilter("ignore")
    network = model()
    detector = detector_of(network, processor)
    prepared = detector.prepare(RGB[None])[0]
    sites = detector.attention_sites()
    last = ("cross", detector.info.num_layers - 1)

    def plain() -> object:
        with torch.no_grad():
            return network(**prepared.inputs)

    def captured(wanted: list, check: bool = False) -> None:
        with record(sites, wanted) as calls:
            detector.forward([prepared], [last[1]])
        if check:
            assert calls[last].of_image(0, ()).residual < 1e-4

    def everything() -> None:
        captured(list(sites))

    if "--peak" in sys.argv:
        print_peak({"sites": everything, "plain": plain}[sys.argv[-1]])
        return
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    hooked = run(network, prepared, detector.trial.found).out
    same = all(torch.equal(plain()[name], hooked[name]) for name in ("logits", "pred_boxes"))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {len(sites)} sites")
    print(f"output with hooks bit-identical: {same}")
    title = "attached RT-DETR R18: "
    for name, ours in {
        "capture of the last layer": lambda: captured([last]),
        "capture of all sites": everything,
        "last layer captured and checked": lambda: captured([last], True),
    }.items():
        found = in_pairs(ours, plain, pairs, clock=clean_seconds)
        keep(RATIOS, title + name, found.median, found)
    added = peak(__file__, "sites") - peak(__file__, "plain")
    keep(RATIOS, title + "MB that all sites add", added)
    start = time.process_time()
    explain(fresh := model(), RGB, processor=processor)
    first, start = time.process_time() - start, time.process_time()
    explain(fresh, RGB, processor=processor)
    again = (time.process_time() - start) / first
    keep(RATIOS, title + "explained again / the first time", again, "CPU")


if __name__ == "__main__":
    main()
