"""The inputs of an attention site and its maps: tensor maths; no model, image or file."""
