"""Every word of a report that needs one more, in plain words."""

GLOSSARY = (
    ("HR@10", "How often the item that a user really took next is among the first ten shown."),
    (
        "NDCG@10",
        "The same, where a place further up counts more: 1 for the first place, 0.63 for the "
        "second, 0.29 for the tenth.",
    ),
    (
        "head, mid, tail",
        "The popular, the middling and the rare items: each group holds a third of all training "
        "interactions, so the head is few items and the tail is most of the catalogue.",
    ),
    (
        "balance",
        "How evenly the three groups are served. 100 % = head, mid and tail have equal hit rates; "
        "33.3 % (1/3) = one group gets everything.",
    ),
    (
        "popularity ranker",
        "Shows everybody the most popular items. What is not better than this is not worth "
        "deploying.",
    ),
    ("oracle", "Knows the true probabilities (embedded data only). Nothing can be better."),
    (
        "cell",
        "One setting: runs that are alike in everything but the seed, the number that fixes all "
        "chance.",
    ),
    ("n", "How many seeds a value is the mean of."),
    (
        "± and interval",
        "± is the standard deviation over seeds: how far single runs lie from the mean. A 95 % "
        "interval says where the mean itself lies.",
    ),
    (
        "p",
        "How often chance alone would make a difference at least as large, if there were none. "
        "Small means hardly by chance. Holm's correction pays for looking at several cells.",
    ),
    ("within noise", "No test tells the two apart; more seeds might."),
    (
        "converged",
        "Epochs after the best one were seen, and were not better. Where the best epoch is the "
        "last, more training may have changed the picture.",
    ),
    (
        "validation and test",
        "Epochs and cells are chosen on validation. Test was looked at once per run, at the chosen "
        "epoch, and chooses nothing: it says what to expect.",
    ),
    ("negatives (k)", "Items per query that the model learns to rank below the one taken."),
    ("seconds per epoch", "Of training and the validation after it."),
)
