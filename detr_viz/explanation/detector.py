"""What a network must offer to be explained, ours and other people's alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorInfo:
    """What is known of a detector, as plain values: it can be printed, hashed and sent.

    type            word of --type, or an adapter's name
    title           as papers write it
    weights         file name of the checkpoint;  path: as it was named;  sha256: of the file
    class_names     one a real class
    num_queries, num_heads, num_layers, num_encoder_layers   num_layers: of the decoder
    modes           of the cross-attention
    pairwise        detections are the top (query, class) pairs, not a class a query
    size, max_size  shorter side that images are resized to, and the bound on the longer one, pixels
    options         what leaves no trace in the weights: name -> value (dilation, ...)
    notes           what had to be assumed
    """

    type: str
    title: str
    weights: str
    path: str
    sha256: str
    class_names: tuple[str, ...]
    num_queries: int
    num_heads: int
    num_layers: int
    num_encoder_layers: int
    modes: tuple[str, ...]
    pairwise: bool
    size: int
    max_size: int
    options: tuple[tuple[str, object], ...] = ()
    notes: tuple[str, ...] = ()
