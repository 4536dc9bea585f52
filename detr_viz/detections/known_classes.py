"""Names of classes of data sets that checkpoints were trained on and do not name themselves."""

from __future__ import annotations

from detr_viz.detections.labels import COCO_NAMES, HOLE

# The 80 classes without the unused ids, as OpenMMLab numbers them.
COCO_80_NAMES: tuple[str, ...] = tuple(name for name in COCO_NAMES if name != HOLE)

_STUFF = {  # COCO panoptic category id -> name (panoptic_coco_categories.json); 1 to 90 are things
    92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain",
    112: "door-stuff", 118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house",
    130: "light", 133: "mirror-stuff", 138: "net", 141: "pillow", 144: "platform",
    145: "playingfield", 147: "railroad", 148: "river", 149: "road", 151: "roof", 154: "sand",
    155: "sea", 156: "shelf", 159: "snow", 161: "stairs", 166: "tent", 168: "towel",
    171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood", 178: "water-other",
    180: "window-blind", 181: "window-other", 184: "tree-merged", 185: "fence-merged",
    186: "ceiling-merged", 187: "sky-other-merged", 188: "cabinet-merged", 189: "table-merged",
    190: "floor-other-merged", 191: "pavement-merged", 192: "mountain-merged", 193: "grass-merged",
    194: "dirt-merged", 195: "paper-merged", 196: "food-other-merged",
    197: "building-other-merged", 198: "rock-merged", 199: "wall-other-merged", 200: "rug-merged",
}  # fmt: skip
_PANOPTIC = 250  # classes of the authors' panoptic models: more than there are category ids

# Indexed by COCO panoptic category id; ids that no class has are holes, as in COCO_NAMES.
COCO_PANOPTIC_NAMES: tuple[str, ...] = tuple(
    COCO_NAMES[i] if i < len(COCO_NAMES) else _STUFF.get(i, HOLE) for i in range(_PANOPTIC)
)

# Microsoft's Table Transformer: detection and structure recognition.
TABLE_DETECTION_NAMES = ("table", "table rotated")
TABLE_STRUCTURE_NAMES = (
    "table",
    "table column",
    "table row",
    "table column header",
    "table projected row header",
    "table spanning cell",
)
