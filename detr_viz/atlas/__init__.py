"""What each head does over a dataset: attention in coordinates of the boxes, summed over images.

box_frame.py   the box as the unit square: the share of each cell in each bin, and zones
statistics.py  sums over objects; their size does not depend on the number of objects
table.py       the statistics of one model, and the rows of its table
words.py       the words of its figure
figure.py      a table as a figure
collect.py     images through the models into tables
"""
