"""Sequential recommenders: any negative sampler with any loss, model, data set and split."""

__version__ = "0.1.0"
