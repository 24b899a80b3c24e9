"""The figures of a report: one module per family, Polars frames in, a matplotlib figure out.

Values are plain numbers (a hit rate of 3.7 % is 0.037); axes show them in percent where
``quantities.quantity`` says so. A metric is a column with its own name: "test/hr_10",
"valid/ndcg_10", "cost/seconds", "diag/hardness". Values that are null, NaN or infinite are left
out, and a line below the figure says of which cells. Every function also takes

* ``title``: set above the figure, such as the data set's name; empty by default;
* ``looks``: what ``style.looks`` gave for all cells of the report, so that a cell has the same
  marker and line in every figure; by default each figure gives its own, in order of appearance;

and raises ``style.NothingToDraw`` (a ValueError) where no value is left to be drawn.

===================================================================  =============================
``tradeoff.tradeoff(points, x, y)``                                  cells, intervals, Pareto front
``trials.trials(runs, knob, metric, by="sampler")``                  every trial of a tuning
``curves.over_epochs(history, metric, chosen=None)``                 validation, test where chosen
``curves.over_seconds(history, metric, chosen=None)``                the same over training time
``sensitivity.sensitivity(runs, knob, metric, by="sampler")``        one knob
``sensitivity.panels(runs, metric, "k", by="loss", panel="model")``  one knob, a panel per model
``heatmap.heatmap(cells, x, y, metric)``                             two knobs
``calibration.calibration(points)``                                  gSASRec's figure 2
``diagnostics.diagnostics(history)``                                 every diag/ metric
``critical_difference.critical_difference(result)``                  Demsar's diagram
``forest.forest(differences, metric, best)``                         differences to the best cell
``output.save(figure, folder, name)``                                NAME.png and NAME.svg
``output.inline_svg(figure, name="")``                               an element for an HTML page
===================================================================  =============================

Frames, column by column (further columns are ignored):

points of ``tradeoff``: one row per cell.
    cell (str); n (int): seeds; for each quantity x and y three columns: NAME, NAME_low, NAME_high
    (95% interval, null or NaN where n = 1). Optional label (str): text beside the point, the
    cell's name by default. Rows of one cell (sizes of a buffer, say) share a marker and are joined.
runs of ``trials``, ``sensitivity``, ``panels``: one row per run.
    seed (int); the column named by ``by`` (str; by default sampler), which decides marker and line;
    the knob's column (numbers; ``trials`` also takes text); the metric's column; ``panels`` also
    the column named by ``panel`` (str).
history of ``curves``, ``diagnostics``: one row per cell, seed and epoch.
    cell (str); seed (int); epoch (int), COUNTED FROM 1 as best_epoch is (``Run.history`` counts
    from 0); seconds (float): of training until the end of the epoch, validation left out; one
    column per metric, null in epochs without it.
chosen of ``curves``: one row per run.
    cell; seed; epoch (int): the best one, from 1; value (float): the same metric on test.
cells of ``heatmap``: one row per pair of settings.
    the two knobs' columns (numbers or text); the metric's column: mean over seeds; n (int); p
    (float): two-sided, against the best cell, NOT yet corrected (the figure applies Bonferroni's
    correction over all p of the frame), null where there is none.
points of ``calibration``: one row per cell, seed and K.
    cell; seed; k, probability, precision: those of calibration.parquet; sampling_rate (float):
    alpha = negatives / (items - 1), beta (float): gBCE's power, 1 for BCE; both null where theorem
    5.1 does not hold (negatives that are not uniform, another loss).
differences of ``forest``: one row per cell and split.
    cell; split ("valid" or "test"); difference: mean of cell - best over seeds; low, high: its
    95% interval, null where n = 1; n (int); p (float): corrected (Holm), null where there is none.
    The best cell itself has no row.
"""
