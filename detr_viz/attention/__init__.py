"""What an attention site attended with, and its maps: tensor maths; no model, image or file."""
