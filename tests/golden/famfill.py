"""Deterministic fill for Deformable DETR, Anchor DETR, Salience DETR, Sparse R-CNN.  numpy only."""
import re, zlib
import numpy as np
from golden.fillrule import image, preprocess, target_size

# families: "def" (plain), "defr" (refine), "def2" (two-stage), "anchor", "salience", "sparse"
GAINS = {
    "common": (("conv3", 0.5), ("backbone", 1.5), ("linear1", 1.5), ("linear2", 0.5)),
    "def": (("input_proj", 0.7), ("class_embed", 2.0), (r"bbox_embed(\.\d+)?\.layers\.2", 0.8), ("bbox_embed", 1.5), ("reference_points", 0.5),
            ("sampling_offsets", 0.6), ("attention_weights", 0.8), ("cross_attn.output_proj", 1.5),
            ("self_attn.output_proj", 0.7), ("self_attn.out_proj", 0.5), ("pos_trans", 1.0)),
    "anchor": (("input_proj", 0.7), ("class_embed", 2.0), (r"bbox_embed\.\d+\.layers\.2", 0.8), ("bbox_embed", 1.5),
               ("adapt_pos", 2.5), ("cross_attn.out_proj", 1.0), (r"encoder_layers\.\d+\.self_attn\.out_proj", 0.5), ("self_attn.out_proj", 0.5)),
    "salience": (("class_head", 2.0), (r"bbox_head\.\d+\.layers\.2", 0.4), (r"encoder_bbox_head\.layers\.2", 0.4), ("bbox_head", 1.5),
                 ("enc_mask_predictor", 2.0), ("sampling_offsets", 0.6), ("attention_weights", 0.8), ("cross_attn.output_proj", 1.5),
                 ("self_attn.output_proj", 0.7), ("self_attn.out_proj", 0.5), ("pre_attention.out_proj", 0.5), ("ref_point_head", 1.5)),
    "sparse": (("class_logits", 2.0), ("bboxes_delta", 0.3), ("out_layer", 1.5), ("self_attn.out_proj", 0.5)),
}


def canonical(key, family):
    """Name whose fill is used: entries of the state dict that are one shared tensor must get one value."""
    if family in ("def", "defr", "def2"):
        key = re.sub(r"^transformer\.decoder\.(class_embed|bbox_embed)\.", r"\1.", key)
    if family == "def":
        key = re.sub(r"^(class_embed|bbox_embed)\.\d+\.", r"\1.0.", key)
    if family == "anchor":
        key = re.sub(r"^transformer\.(class_embed|bbox_embed)\.\d+\.", r"transformer.\1.0.", key)
    if family == "salience":
        key = key.replace("transformer.encoder.enhance_mcsp.", "transformer.encoder_class_head.")
    return key


def uniform(key, shape):
    n = int(np.prod(shape, dtype=np.int64))
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(n)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0 ** -52 - 1.0).reshape(shape)    # [-1, 1)


DIRS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], np.float64)


def keep(key):
    """Buffers of the official model that hold constants: never filled."""
    return key.endswith(("level_filter_ratio", "layer_filter_ratio", "dim_tx", "dim_ty"))


def fill(key, shape, family):
    key = canonical(key, family)
    shape = tuple(int(s) for s in shape)
    u = uniform(key, shape)
    leaf = key.rsplit(".", 1)[-1]
    gains = GAINS["common"] + GAINS["def" if family.startswith("def") else family]
    if family in ("defr", "def2"):
        gains = ((r"bbox_embed\.\d+\.layers\.2", 0.4),) + gains
    if len(shape) == 0:                                             # num_batches_tracked
        return np.zeros((), np.int64)
    if leaf == "bias" and "sampling_offsets" in key:                # official directional grid, jittered by half a unit
        n = shape[0] // 16                                          # levels * points
        p = np.tile(np.arange(1, 5, dtype=np.float64), n // 4)      # point index + 1, inner axis
        grid = DIRS[:, None, :] * p[None, :, None]                  # heads, levels*points, 2
        return (grid.reshape(-1) + 0.5 * u).astype(np.float32)
    if len(shape) == 1:
        if leaf == "running_var":
            x = 1.0 + 0.5 * u
        elif leaf == "weight":
            x = 1.0 + 0.25 * u
        elif leaf == "alpha":
            x = 0.3 * u
        else:
            x = (0.5 if leaf == "in_proj_bias" or "attention_weights" in key else 0.1) * u
            if key == "transformer.enc_output.bias":
                x = 0.01 * x                                        # keeps the invalid (all-zero) tokens out of the top-k
            if re.search(r"(class_embed\.\d+|(encoder_)?class_head(\.\d+)?|class_logits)\.bias$", key):
                x = x - 4.59511985013459                            # -log(99): the official focal prior 0.01
        return x.astype(np.float32)
    special = {"query_embed.weight": 2.0, "transformer.level_embed": 1.0, "transformer.level_embeds": 1.0,
               "transformer.tgt_embed.weight": 1.0, "transformer.pattern.weight": 1.0, "init_proposal_features.weight": 1.0,
               "denoising_generator.label_encoder.weight": 1.0}
    if key in special:                                              # embeddings: standard deviation, not fan-in
        return (special[key] * np.sqrt(3.0) * u).astype(np.float32)
    if key == "transformer.position.weight" or "background_embedding" in key:
        return (0.5 + 0.5 * u).astype(np.float32)                   # uniform [0,1) as officially
    if key == "init_proposal_boxes.weight":                         # cx, cy, w, h
        return (np.array([0.5, 0.5, 0.5, 0.5]) + np.array([0.35, 0.35, 0.45, 0.45]) * u).astype(np.float32)
    g = next((v for p, v in gains if re.search(p, key)), 1.0)
    x = (g * np.sqrt(3.0 / (u.size // shape[0]))) * u
    if (key.startswith(("backbone", "input_proj", "neck.")) or re.search(r"\.linear2\.|layers\.[12]\.weight$", key)) and shape[1] % 2 == 0:
        x[:, 1::2] = -x[:, 0::2]                                    # cancels the common mode left by ReLU
    if re.search(r"pos_trans\.|ref_point_head\.layers\.0|adapt_pos[12]d\.0", key):
        n = 256 if "adapt_pos1d" in key else 128                    # features per coordinate of the sine embedding
        x[:, np.arange(shape[1]) % n >= 3 * n // 8] *= 0.1          # quiets the slow, nearly constant features
    if leaf == "in_proj_weight":
        if shape[0] == 5 * shape[1]:                                # Anchor DETR: q_row, q_col, k_row, k_col, v
            x[: 4 * shape[1]] *= 1.5 if "cross_attn" in key else 1.0
        else:
            x[: 2 * shape[1]] *= 1.6 if family == "sparse" else 0.7
    return x.astype(np.float32)
