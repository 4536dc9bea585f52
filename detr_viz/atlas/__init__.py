"""What each head does over a dataset: attention in coordinates of the boxes, summed up as it comes.

geometry.py  a box's surroundings: which share of which cell lies in which bin, and zones
tally.py     sums over objects, whose size does not depend on how many there are
book.py      the tallies of a model, and rows of a table
figure.py    tallies -> a figure
command.py   the atlas command
"""
