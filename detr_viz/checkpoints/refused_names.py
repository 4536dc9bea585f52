"""What is said of a file whose pickle asks for more than plain values. Imports nothing."""

from __future__ import annotations

_FOREIGN_CLASSES = (  # start of the global a pickle asks for -> who writes such files
    ("ultralytics.", "a YOLO checkpoint of ultralytics"),
    ("models.yolo.", "a YOLO checkpoint"),
    ("models.common.", "a YOLO checkpoint"),
    ("mmengine.", "a checkpoint of OpenMMLab"),
    ("mmcv.", "a checkpoint of OpenMMLab"),
    ("detectron2.", "a checkpoint of detectron2"),
    ("torchvision.models.", "a whole torchvision model"),
    ("transformers.models.", "an object of transformers: a whole model, or its config"),
    ("transformers.", "an object of transformers"),
    ("models.", "a whole model rather than its weights"),
    ("__main__.", "an object of the script that wrote it"),
)


def refused(name: str) -> str:
    """Says of a file that its pickle asks for this name, "" for a call."""
    who = next((title for start, title in _FOREIGN_CLASSES if name.startswith(start)), None)
    return (
        f"is refused{f' ({who})' if who else ''}: its pickle asks for "
        f"{name or 'a call that no plain value needs'}, and only plain weights are loaded; save it "
        'without, where it was written: torch.save({"model": model.state_dict()}, "weights.pth")'
    )
