"""What detectors found, missed and got wrong in many annotated images, and why.

rows.py makes the rows of one image, run.py goes through all images, summary.py counts, worst.py
draws the worst.
"""
