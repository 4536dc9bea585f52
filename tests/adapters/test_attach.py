"""attach: networks of anybody, read by their children; what cannot be read is one line."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import tiny_models as tiny
import torch
from fifty_lines import ATTACHED, FiftyLines, built
from torch import nn

from detr_viz import attach, explain
from detr_viz.adapters import positions, read_sampled, recorder
from detr_viz.adapters.transformers_models import detector_of
from detr_viz.common.errors import UserError
from detr_viz.explanation.explain_image import SelfCheckError
from detr_viz.explanation.faithfulness import faithfulness

RGB = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)


def fifty(**options):
    return attach(built(), **{**ATTACHED, **options})


def test_the_fifty_lines_of_the_paper():
    d = fifty()
    assert (d.info.num_queries, d.info.num_layers, d.info.num_encoder_layers) == (9, 2, 2)
    assert d.info.modes == ("combine",) and "adds no position" in d.info.why_undivided
    e = explain(d, RGB, layers="all", sites=["encoder", "decoder"])
    assert e.grid_hw == (2, 3) and e.stride == 32
    assert all(v <= 1e-4 for v in tiny.residuals(e).values())
    seen = {}
    with torch.no_grad():  # torch's own weights, of each call
        handles = [
            layer.multihead_attn.register_forward_pre_hook(
                lambda m, a, k, i=i: (
                    a,
                    {**k, "need_weights": True, "average_attn_weights": False},
                ),
                with_kwargs=True,
            )
            for i, layer in enumerate(d.network.transformer.decoder.layers)
        ]
        handles += [
            layer.multihead_attn.register_forward_hook(lambda m, a, o, i=i: seen.update({i: o[1]}))
            for i, layer in enumerate(d.network.transformer.decoder.layers)
        ]
        d.network(ATTACHED["preprocess"](RGB))
        [handle.remove() for handle in handles]
    for layer in (0, 1):
        theirs = seen[layer][0].transpose(0, 1).numpy()
        np.testing.assert_allclose(e.attention(("cross", layer)), theirs, atol=1e-5)
    with pytest.raises(UserError, match="only combine, no 'position': this model adds no position"):
        e.maps("position")
    with pytest.raises(UserError, match="only combine"):
        e.ablate("content")
    np.testing.assert_allclose(e.ablate("head:0").before.class_scores, e.class_scores, atol=1e-5)


def test_a_hidden_cell_is_as_if_it_were_masked_in_torch():
    """Faithfulness hides cells in the network: torch's own memory_mask gives the same scores."""
    d = fifty()
    e = explain(d, RGB)
    hidden = torch.zeros(1, 9, 6, dtype=torch.bool)
    hidden[0, 4, [1, 2]] = True
    ours = d.scores_with_hidden(e.memory, hidden, [1])
    layer = d.network.transformer.decoder.layers[1].multihead_attn
    with torch.no_grad():
        handle = layer.register_forward_pre_hook(
            lambda m, a, k: (a, {**k, "attn_mask": hidden[0]}), with_kwargs=True
        )
        out = d.network(ATTACHED["preprocess"](RGB))
        handle.remove()
    np.testing.assert_allclose(ours[0], ATTACHED["scores"](out), atol=1e-5)
    curves = faithfulness(e, [4], orders=1)
    assert np.isfinite(curves.deletion["combine"]).all()


def test_sites_by_name_and_names_that_are_not_there():
    name = "transformer.decoder.layers.{}.multihead_attn"
    d = fifty(sites={"cross": [name.format(1)]})
    assert d.info.num_layers == 1
    both = explain(fifty(), RGB, layers="all")
    np.testing.assert_array_equal(explain(d, RGB).maps(), both.maps(layer=1))
    with pytest.raises(UserError, match=r"names 'layers.9' for cross, but attention was called in"):
        fifty(sites={"cross": ["layers.9"]})
    with pytest.raises(UserError, match="its keys are cross"):
        fifty(sites={"crossing": [name.format(1)]})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"boxes": lambda out: out["pred_boxes"][:3, 0]}, "3 rows and scores"),
        ({"boxes": lambda out: out["pred_boxes"]}, r"boxes\(out\) has shape \(9, 1, 4\)"),
        ({"scores": None}, "scores= is NoneType, not a function"),
        ({"class_names": ["a"]}, "1 class names for 5 classes"),
        ({"cell_rule": "middle"}, "cell_rule 'middle' is not one of"),
        ({"preprocess": lambda rgb: torch.zeros(3)}, "gave no tensor"),
    ],
)
def test_mistakes_are_one_line(options, says):
    with pytest.raises(UserError, match=says) as caught:
        fifty(**options)
    assert "\n" not in str(caught.value)


def test_a_network_without_known_attention():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return self.head(x.mean((2, 3)))

    with pytest.raises(UserError, match="no attention was called: the model is exported, scripted"):
        attach(
            Plain(),
            boxes=lambda out: out.sigmoid(),
            scores=lambda out: out.sigmoid(),
            preprocess=ATTACHED["preprocess"],
        )


# ---- compiled, scripted, half precision ---------------------------------------------------------


def test_a_compiled_network_runs_without_its_compiled_code():
    """Compiled code runs no hooks, and says nothing of it."""
    plain = explain(fifty(), RGB)
    compiled = torch.compile(built(), backend="eager")
    e = explain(attach(compiled, **ATTACHED), RGB)
    np.testing.assert_allclose(e.maps(), plain.maps(), atol=1e-6)


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_model_of_transformers(inside):
    plain = explain(tiny.model("rt_detr"), RGB, processor=tiny.Processor())
    model = tiny.build("rt_detr")
    if inside:
        model.compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    e = explain(model, RGB, processor=tiny.Processor())
    np.testing.assert_allclose(e.maps(), plain.maps(), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_traced_network_is_one_line():
    class Boxes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = built()

        def forward(self, x):
            out = self.net(x)
            return out["pred_boxes"], out["pred_logits"]

    traced = torch.jit.trace(Boxes(), torch.rand(1, 3, 96, 128))
    with pytest.raises(UserError, match="no attention was called: the model is exported"):
        attach(
            traced,
            boxes=lambda out: out[0][:, 0],
            scores=lambda out: out[1][:, 0].softmax(-1),
            preprocess=ATTACHED["preprocess"],
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["detr", "conditional_detr", "rt_detr", "yolos"])
def test_half_precision_has_a_limit_of_its_own(model_type, dtype):
    model = tiny.build(model_type).to(dtype)
    try:
        with torch.no_grad():
            model(pixel_values=torch.rand(1, 3, 96, 128, dtype=dtype))
    except RuntimeError as error:  # Conditional DETR before 4.50 or so
        pytest.skip(f"transformers' own network does not run in {dtype}: {error}")
    e = explain(model, RGB, processor=tiny.Processor())
    assert 1e-4 < e.residuals[1] < 2e-2 and e.meta["dtype"] == str(dtype).split(".")[1]
    assert np.isfinite(e.maps()).all()


# ---- wrong readings are refused -----------------------------------------------------------------


@pytest.fixture(scope="module")
def rt_detr():
    return detector_of(tiny.model("rt_detr"), tiny.Processor())


def _reading(monkeypatch, change):
    """The reading of deformable attention is changed before it is checked."""
    right = read_sampled._padded

    def wrong(call, attention, image, batch):
        return right(call, change(attention), image, batch)

    monkeypatch.setattr(read_sampled, "_padded", wrong)


WRONG = {
    "x and y swapped": lambda a: replace(a, c_offsets=a.c_offsets.flip(-1)),
    "half a cell off": lambda a: replace(a, reference=a.reference + 0.5 / 16),
    "not divided by points": lambda a: replace(a, c_offsets=a.c_offsets * a.c_offsets.shape[-2]),
    "levels in another order": lambda a: replace(a, c_logits=a.c_logits.flip(-2)),
    "heads in another order": lambda a: replace(a, c_logits=a.c_logits.flip(0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reading_of_samples_fails_the_self_check(name, rt_detr, monkeypatch):
    _reading(monkeypatch, WRONG[name])
    with pytest.raises(SelfCheckError, match=r"self-check failed in decoder layer 1: residual"):
        explain(rt_detr, RGB)


def test_the_reference_of_another_layer_fails_the_self_check(rt_detr, monkeypatch):
    first = []
    right = read_sampled.reference_of

    def wrong(call, levels):
        found = right(call, levels)
        first.append(found)
        return first[0]

    monkeypatch.setattr(read_sampled, "reference_of", wrong)
    with pytest.raises(SelfCheckError, match="self-check failed in decoder layer 1"):
        explain(rt_detr, RGB, layers="all")


def test_an_inverted_mask_fails_the_self_check(monkeypatch):
    """A padded picture: a third of the cells is not valid."""
    model = tiny.build("deformable_detr")

    class Padding(tiny.Processor):
        def __call__(self, images, return_tensors="pt"):
            found = super().__call__(images)
            mask = torch.ones(1, *self.hw, dtype=torch.long)
            mask[:, :, 80:] = 0
            return {"pixel_values": found["pixel_values"] * mask[:, None], "pixel_mask": mask}

    detector = detector_of(model, Padding())
    e = explain(detector, RGB, layers="all", sites=["encoder"])
    assert all(v <= 1e-4 for v in tiny.residuals(e).values())
    padding = e.attention_at(("cross", 1)).padding
    assert padding is not None and 0.2 < padding.float().mean() < 0.5
    assert e.grids()[0].valid_hw == (96, 80) and e.input_hw == (96, 80)
    right = read_sampled.masks
    monkeypatch.setattr(read_sampled, "_padded", lambda call, a, i, b: iter([_masked(a, ~padding)]))
    with pytest.raises(SelfCheckError, match="self-check failed"):
        explain(detector, RGB)
    assert right is read_sampled.masks


def _masked(attention, padding):
    value = attention.value.masked_fill(padding[None, :, None], 0)
    return replace(attention, value=value, padding=padding)


def test_the_position_of_another_query_fails_the_split_check(rt_detr, monkeypatch):
    """The self-check cannot see it: content + position is the same query."""
    right = positions._named

    def wrong(call, x, side):
        found = right(call, x, side)
        return found and (found[0].roll(1, 1), found[1])

    monkeypatch.setattr(positions, "_named", wrong)
    with pytest.raises(SelfCheckError, match=r"by argument .* and by difference are .* apart"):
        explain(rt_detr, RGB)


def test_a_way_of_its_own_to_sample_names_the_site():
    """RT-DETRv2 can read the nearest cell: bilinear maps are not its own."""
    if "rt_detr_v2" not in tiny.installed_types():
        pytest.skip("not in this transformers")
    model = tiny.build("rt_detr_v2", decoder_method="discrete")
    with pytest.raises(SelfCheckError, match=r"decoder\.layers\.1\.encoder_attn attends in a way"):
        explain(model, RGB, processor=tiny.Processor())


def test_position_by_a_function_of_the_caller():
    model = tiny.model("rt_detr")

    def position(site, arguments):
        names = "object_queries_position_embeddings", "position_embeddings"  # the latter before 5
        return next(arguments[name] for name in names if name in arguments), None

    given = attach(
        model,
        boxes=lambda out: out.pred_boxes,
        scores=lambda out: out.logits.sigmoid(),
        preprocess=lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1).float() / 255,
        position=position,
    )
    found = attach(
        model,
        boxes=lambda out: out.pred_boxes,
        scores=lambda out: out.logits.sigmoid(),
        preprocess=lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1).float() / 255,
    )
    maps = [explain(d, RGB).maps("position") for d in (given, found)]
    np.testing.assert_allclose(*maps, atol=1e-5)


# ---- two at a time -------------------------------------------------------------------------------


def test_two_threads_explain_with_one_network():
    d = fifty()
    pictures = [np.roll(RGB, k * 9, 1) for k in range(4)]
    alone = [explain(d, picture).maps() for picture in pictures]
    found = [None] * 4

    def work(k):
        found[k] = explain(d, pictures[k]).maps()

    precision = [getattr(torch.backends.cudnn, part, None) for part in ("conv", "rnn")]
    before = [getattr(part, "fp32_precision", None) for part in precision]
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for ours, theirs in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert recorder._owner.get() == ()
    assert [getattr(part, "fp32_precision", None) for part in precision] == before


def test_pictures_of_a_batch_are_as_alone():
    from detr_viz.explanation.explain_image import explain_batch
    from detr_viz.images.read import load_image

    d = fifty()
    pictures = [load_image(np.roll(RGB, k * 9, 1)) for k in range(2)]
    both = explain_batch(d, pictures, np.stack([p.rgb for p in pictures]))
    for e, picture in zip(both, pictures, strict=True):
        np.testing.assert_array_equal(e.maps(), explain(d, picture).maps())


def test_what_was_captured_is_dropped_with_the_result():
    d = fifty()
    explain(d, RGB)
    assert not [m for m in d.network.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert isinstance(d.network, FiftyLines)


def test_rows_that_are_sorted_by_score_are_refused():
    """Their maps would be of other queries, and no self-check sees it."""
    model = tiny.model("rt_detr")

    def order(out):
        return out.logits[0].sigmoid().amax(-1).argsort(descending=True)

    given = {"preprocess": lambda rgb: torch.from_numpy(rgb).permute(2, 0, 1).float() / 255}
    line = r"queries 0, 2, 4 change rows .* give rows in the order of the queries, not sorted"
    with pytest.raises(UserError, match=line) as caught:
        attach(
            model,
            boxes=lambda out: out.pred_boxes[0][order(out)],
            scores=lambda out: out.logits[0].sigmoid()[order(out)],
            **given,
        )
    assert "\n" not in str(caught.value)
