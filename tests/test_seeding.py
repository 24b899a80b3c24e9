from itertools import product

import torch

from negrec.seeding import generator, start_global, stream_seed


def test_streams_and_keys_never_share_a_seed():
    keys = list(product(range(3), ("model", "order", "sampler"), range(3), range(3)))
    assert len({stream_seed(*key) for key in keys}) == len(keys)
    assert stream_seed(1, "order", 23) != stream_seed(12, "order", 3)


def test_a_seed_is_the_same_in_every_process():
    # Pinned: results would change silently if it moved.
    assert stream_seed(0, "order", 0) == 2094333682667709378


def test_generator_starts_its_stream_anew():
    draws = [torch.rand(3, generator=generator(0, "order", 1)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


def test_the_global_stream_is_that_of_torch():
    torch.manual_seed(stream_seed(0, "dropout", 2, 3))
    expected = torch.rand(5)
    start_global(torch.device("cpu"), 0, "dropout", 2, 3)
    assert torch.equal(torch.rand(5), expected)
