"""Random streams: one integer seed, one independent stream for each part and key."""

import hashlib

import torch


def stream_seed(seed: int, stream: str, *key: int) -> int:
    """A 63-bit seed for a named stream.

    The streams of different parts never share draws, so the same seed means the same
    initialisation and data order whatever the sampler does.

    Args:
        seed: the run's seed.
        stream: the part's name, such as "sampler".
        key: what further distinguishes the stream, such as (epoch, batch).
    """
    text = repr((int(seed), stream, *(int(k) for k in key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(
    seed: int, stream: str, *key: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator at the start of a named stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, stream, *key))


def start_global(device: torch.device, seed: int, stream: str, *key: int) -> None:
    """Puts torch's global generators, the CPU's and the device's, at the start of a named stream.

    As ``torch.manual_seed``, which keeps a stack trace for every kind of device that is not in
    use: a millisecond, at each step.
    """
    number = stream_seed(seed, stream, *key)
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
