"""Networks with stages: an image of a batch is explained as it is alone."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT, demo_model

from detr_viz.explanation.explain_image import explain, explain_batch
from detr_viz.images.preprocessing import Preprocessing
from detr_viz.images.read import load_image


@pytest.mark.parametrize("name", ["sparse_rcnn", "dynamic_detr"])
def test_images_of_a_batch_are_explained_as_alone(name):
    """The boxes that enter the first stage may be learned: there is one set for all images."""
    model = demo_model(name)
    picture = load_image(ROOT / "image/scene_1.jpg")
    how = model.info.preprocessing or Preprocessing(model.info.size, model.info.max_size)
    pixels = how.at(None, None).resized(picture)
    alone = explain(model, picture)
    batch = explain_batch(model, [picture.facts] * 2, np.stack([pixels] * 2), "last")
    for e in batch:
        np.testing.assert_allclose(e.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(e.boxes_xyxy_px, alone.boxes_xyxy_px, atol=1e-2)
        for key, points in e.layer_references.items():
            np.testing.assert_allclose(points, alone.layer_references[key], atol=1e-2)
    assert len(batch) == 2
