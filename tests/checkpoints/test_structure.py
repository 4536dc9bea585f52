"""Where a detector stands in a file: any prefix, any entry; what is left aside; several of them."""

from __future__ import annotations

import collections

import pytest
import torch
from checkpoint_factory import prefixed, small_state_dict, training

from detr_viz.checkpoints.checkpoint import load_checkpoint
from detr_viz.common.errors import UserError

SMALL = {kind: small_state_dict(kind) for kind in ("detr", "cd_detr")}
CLASSES = torch.ones(5)
STEPS = torch.tensor(7)


def zeros(sd):
    return {key: torch.zeros_like(value) for key, value in sd.items()}


def wrapped_inside(sd):
    """Only the backbone compiled, only the transformer in DDP."""
    swaps = (("backbone.", "backbone._orig_mod."), ("transformer.", "transformer.module."))
    return {
        next((new + k[len(old) :] for old, new in swaps if k.startswith(old)), k): v
        for k, v in sd.items()
    }


def beside(sd, **more):
    return {**sd, **{key.replace("__", "."): value for key, value in more.items()}}


# what a file holds of a state dict -> what a note must contain of what is left aside
FORMS = {
    "detr.": (lambda sd: {"model": prefixed("detr.", sd)}, None),
    "model.detr.": (lambda sd: {"state_dict": prefixed("model.detr.", sd)}, None),
    "net.": (lambda sd: prefixed("net.", sd), None),
    "a word of one's own": (lambda sd: {"state_dict": prefixed("my_detector.core.", sd)}, None),
    "DDP around": (lambda sd: {"model": prefixed("module.detr.", sd)}, None),
    "DDP inside": (lambda sd: {"model": prefixed("detr.module.", sd)}, None),
    "compiled in Lightning": (lambda sd: {"state_dict": prefixed("model._orig_mod.", sd)}, None),
    "wrapped parts": (lambda sd: {"model": wrapped_inside(sd)}, None),
    "AveragedModel": (lambda sd: beside(prefixed("module.", sd), n_averaged=STEPS),
                      "1 tensor beside the detector's (n_averaged)"),
    "loss beside": (lambda sd: {"state_dict": beside(prefixed("model.", sd),
                                                     criterion__empty_weight=CLASSES)},
                    "1 tensor beside the detector's (criterion.empty_weight)"),
    "loss inside": (lambda sd: {"model": beside(sd, criterion__empty_weight=CLASSES)},
                    "1 tensor beside the detector's (criterion.empty_weight)"),
    "buffers of the module itself": (
        lambda sd: {"model": beside(sd, empty_weight=CLASSES, pixel_mean=torch.ones(3, 1, 1))},
        "2 tensors beside the detector's (empty_weight, pixel_mean)"),
    "metrics": (lambda sd: {"state_dict": beside(
        prefixed("model.", sd), val_map__total=torch.ones(()), f1__tp=STEPS,
        head__weight=torch.ones(2, 2), other__bias=CLASSES)},
        "4 tensors beside the detector's (val_map.total, f1.tp, head.weight, ...)"),
    "metrics inside": (lambda sd: beside(sd, confusion__counts=torch.ones(4, 4).long(),
                                         train_acc__total=torch.ones(())),
                       "2 tensors beside the detector's (confusion.counts, train_acc.total)"),
    "the module under two names": (lambda sd: {"state_dict": {**prefixed("model.", sd),
                                                              **prefixed("detr.", sd)}}, None),
    "an entry of one's own": (lambda sd: {"best": {"weights": sd}, "epoch": 3}, None),
    "ordered": (lambda sd: collections.OrderedDict(prefixed("detr.", sd)), None),
    "state_dict_ema": (lambda sd: {"state_dict": zeros(sd), "state_dict_ema": sd},
                       "(state_dict_ema) are used, not state_dict"),
    "ema_model, DDP": (lambda sd: training(zeros(sd), ema_model=prefixed("module.", sd)),
                       "(ema_model) are used, not model"),
    "model_ema, wrapped": (lambda sd: training(zeros(sd), model_ema={"module": sd}),
                           "(model_ema) are used, not model"),
    "ema_state_dict": (lambda sd: {"state_dict": zeros(sd), "ema_state_dict": sd},
                       "(ema_state_dict) are used, not state_dict"),
    "mmengine": (lambda sd: {"state_dict": sd, "ema_state_dict": prefixed("module.", zeros(sd)),
                             "meta": {"mmengine_version": "0.10"}},
                 "state_dict is used: it holds the averaged weights"),
    "EMA beside, flat": (lambda sd: {"state_dict": {**prefixed("model.", zeros(sd)),
                                                    **prefixed("ema.module.", sd),
                                                    "criterion.empty_weight": CLASSES}},
                         "(state_dict, under ema.) are used, not state_dict, under model."),
    "EMA inside": (lambda sd: {**zeros(sd), **prefixed("ema.", sd)}, "(ema.) are used"),
    "EMA alone": (lambda sd: {"state_dict": prefixed("ema_model.module.", sd)},
                  "there are no others"),
    "EMA not whole": (lambda sd: {"model": sd, "ema": dict(list(zeros(sd).items())[4:])},
                      "model is used: the averaged weights (ema) are not complete"),
    "EMA as a list": (lambda sd: {"model": sd, "ema": {"shadow_params": [CLASSES], "decay": 0.9}},
                      "the averaged weights (ema) are not used"),
    "EMA without dots": (lambda sd: {"state_dict": {
        **sd, **{"ema_" + k.replace(".", "_"): torch.zeros_like(v) for k, v in sd.items()}}},
        " tensors beside the detector's (ema_"),
    "EMA of its own names": (lambda sd: beside(
        sd, model_ema__transformerencoder=torch.ones(2, 2), model_ema__decay=torch.ones(())),
        "2 tensors beside the detector's (model_ema.transformerencoder, model_ema.decay)"),
    "a teacher with an entry": (lambda sd: {"model": sd, "teacher": {"model": zeros(sd)}},
                                "model is used; teacher.model: not used"),
    "a teacher beside model": (lambda sd: {"model": sd, "teacher": zeros(sd)},
                               "model is used; teacher: not used"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", SMALL)
def test_the_same_weights_whatever_is_around_them(tmp_path, kind, form):
    make, expected = FORMS[form]
    torch.save(make(SMALL[kind]), tmp_path / "w.pth")
    checkpoint = load_checkpoint(tmp_path / "w.pth")
    assert checkpoint.spec.name == kind
    assert checkpoint.state_dict.keys() == SMALL[kind].keys()
    assert all(torch.equal(checkpoint.state_dict[k], v) for k, v in SMALL[kind].items())
    ours = [note for note in checkpoint.notes if not note.startswith("assumed")]
    if expected is None:
        assert ours == []
    else:
        assert any(expected in note for note in ours)


SD = SMALL["detr"]


@pytest.mark.parametrize("nested", [False, True])
def test_lightning_hyper_parameters_are_args(tmp_path, nested):
    saved = {"nheads": 4, "dilation": False}
    saved = {"args": saved, "lr": 0.1} if nested else saved
    content = {"state_dict": prefixed("model.", SD), "hyper_parameters": saved}
    torch.save(content, tmp_path / "w.ckpt")
    checkpoint = load_checkpoint(tmp_path / "w.ckpt")
    assert checkpoint.config.nheads == 4 and checkpoint.notes == ()


REFUSED = {
    "teacher and student": ({"state_dict": {**prefixed("student.", SD),
                                            **prefixed("teacher.", zeros(SD))}},
                            ["2 detectors", "student.", "teacher."]),
    "two entries": ({"student": SD, "teacher": zeros(SD)}, ["2 detectors", "student; teacher"]),
    "two averages": ({"model": SD, "ema": zeros(SD), "swa": {k: v + 1 for k, v in SD.items()}},
                     ["3 detectors", "ema; swa; model"]),
    "a part that is named as a metric": (beside(SD, feature_map__weight=torch.ones(3, 3)),
                                         ["1 tensors beyond those of DETR", "feature_map.weight"]),
    "a part that may matter": (beside(SD, adapter__weight=torch.ones(3, 3)),
                               ["1 tensors beyond those of DETR", "adapter.weight"]),
    "half outside": ({"state_dict": {(k if "class_embed" in k else f"detr.{k}"): v
                                     for k, v in SD.items()}},
                     ["has no class_embed.weight"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_rule_decides_is_refused_by_name(tmp_path, name):
    content, fragments = REFUSED[name]
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError) as raised:
        load_checkpoint(tmp_path / "w.pth")
    message = str(raised.value)
    assert "\n" not in message and all(fragment in message for fragment in fragments), message
