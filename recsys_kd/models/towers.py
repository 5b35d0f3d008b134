"""The teacher's dense parts."""

from torch import Tensor, nn


class CrossNetwork(nn.Module):
    """DCN-V2 with low-rank matrices: x_{l+1} = x_0 * (U V x_l + b) + x_l. Source: arXiv 2008.13535, eq. 2."""

    def __init__(self, size: int, layers: int, rank: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(size, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(rank, size) for _ in range(layers))

    def forward(self, x0: Tensor) -> Tensor:
        """Return the crossed features, same shape [B, size]."""
        x = x0
        for down, up in zip(self.down, self.up, strict=True):
            x = x0 * up(down(x)) + x
        return x


def mlp(size: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Return ReLU layers of the given widths with dropout after each."""
    layers: list[nn.Module] = []
    for before, after in zip((size, *hidden[:-1]), hidden, strict=True):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
