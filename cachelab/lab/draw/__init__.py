"""Drawing: charts from data, in the house style, as files that can be drawn again.

Each module may import those above it.

units     how numbers and the names of columns are written for people
roles     which colour, marker and dash stand for which role in the data
layout    where titles, ticks, notes and names stand, so that no text touches another
canvas    empty axes in the house style, how a notebook shows them, how they become files
figures   the folder: each figure kept with its data, read, and drawn again from it
charts    one function a kind of chart: a DataFrame in, Axes out
"""
