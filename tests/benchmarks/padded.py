"""The reference of the benchmarks: SASRec trained the way most public code does.

The same model as ``model=sasrec`` (pre-norm, GELU, 4 D, learned positions), written plainly:
every history is padded to the full length, and every padded position is computed.
"""

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.types import Jagged


class PaddedSASRec(nn.Module):
    """SASRec over left-padded windows, (B, L) -> (B, L, D)."""

    def __init__(
        self, n_items: int, length: int, dim: int, blocks: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.positions = nn.Embedding(length, dim)
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(dim, heads, dropout, batch_first=True) for _ in range(blocks)
        )
        self.norms1 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(blocks))
        self.norms2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(blocks))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
            for _ in range(blocks)
        )
        self.final = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("future", torch.ones(length, length).triu(1).bool())
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, items: Tensor) -> Tensor:
        x = self.dropout(self.items(items) + self.positions.weight)
        for attention, norm1, norm2, feed in zip(
            self.attention, self.norms1, self.norms2, self.feed, strict=True
        ):
            y = norm1(x)
            attended, _ = attention(y, y, y, attn_mask=self.future, need_weights=False)
            x = x + self.dropout(attended)
            x = x + self.dropout(feed(norm2(x)))
        out: Tensor = self.final(x)
        return out


class PaddedTrainer:
    """One uniform negative per position, binary cross-entropy, Adam.

    Args:
        train: catalogue ids in order, one row per user.
        n_items: V.
        length: L, of the padded window.
        batch_size: users of a batch.
    """

    def __init__(
        self,
        train: Jagged,
        n_items: int,
        length: int = 50,
        batch_size: int = 256,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
    ) -> None:
        torch.manual_seed(0)
        self.model = PaddedSASRec(n_items, length, dim, blocks, heads, dropout)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.n_items, self.length, self.batch_size = n_items, length, batch_size
        values, offsets = train.values.numpy(), train.offsets.numpy()
        histories = [values[a:b] for a, b in itertools.pairwise(offsets)]
        self.histories = [history for history in histories if len(history) > 1]

    def epoch(self) -> float:
        """Trains one epoch; the mean loss of its batches."""
        order = np.random.default_rng(0).permutation(len(self.histories))
        losses = []
        for start in range(0, len(order), self.batch_size):
            inputs, targets = self.batch(order[start : start + self.batch_size])
            negatives = torch.randint(1, self.n_items + 1, targets.shape)
            hidden = self.model(inputs)
            positive = (hidden * self.model.items(targets)).sum(-1)
            negative = (hidden * self.model.items(negatives)).sum(-1)
            valid = targets > 0
            loss = (F.softplus(-positive) + F.softplus(negative))[valid].mean() / 2
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def batch(self, users: np.ndarray) -> tuple[Tensor, Tensor]:
        """Left-padded inputs and targets, (B, L) each."""
        inputs = np.zeros((len(users), self.length), dtype=np.int64)
        targets = np.zeros_like(inputs)
        for row, user in enumerate(users):
            window = self.histories[user][-self.length - 1 :]
            inputs[row, self.length - len(window) + 1 :] = window[:-1]
            targets[row, self.length - len(window) + 1 :] = window[1:]
        return torch.from_numpy(inputs), torch.from_numpy(targets)
