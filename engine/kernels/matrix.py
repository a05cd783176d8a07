"""A weight as the kernels of a GPU read it: plain numbers, or whole ones of 8 or 4 bits with scales."""

import torch

GROUPS = (128, 64, 32)
"""How many 4-bit weights share a scale: the most that divides the depth, which is a multiple of the least."""


class Matrix:
    """A weight [rows, depth]: "plain" as it is, "int8" with a scale for each row, "int4" with one for each group.

    int8 scales by a row's largest weight; int4 by the largest of a group, which
    becomes -8, as in llama.cpp's Q4_0. Eight 4-bit weights share a 32-bit word: nibble i of a group's word w is its
    weight i x words + w, so that each nibble of neighbouring words meets neighbouring inputs. `group` is 0 unless int4.
    """

    def __init__(self, weight: torch.Tensor, kind: str):
        self.kind, (self.rows, self.depth) = kind, weight.shape
        self.group = 0
        self.scales = None
        if kind == "int8":
            self.weight, self.scales = _int8(weight.detach())
        elif kind == "int4":
            self.group = next(group for group in GROUPS if self.depth % group == 0)
            self.weight, self.scales = _int4(weight.detach(), self.group)
        else:
            self.weight = weight.detach().contiguous()

    @property
    def width(self) -> int:
        """Bytes of a row, without scales."""
        return self.weight[0].numel() * self.weight.element_size()

    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.weight, self.scales) if part is not None)

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights as plain numbers [rows, depth]."""
        if self.kind == "plain":
            return self.weight
        if self.kind == "int8":
            return (self.weight * self.scales[:, None]).to(dtype)
        shifts = torch.arange(0, 32, 4, device=self.weight.device, dtype=torch.int32)
        words = self.weight.view(self.rows, -1, 1, self.group // 8)
        whole = ((words >> shifts[:, None]) & 15) - 8
        return (whole.flatten(2) * self.scales[..., None]).to(dtype).view(self.rows, self.depth)


def _int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scales = weight.abs().amax(1).float().div_(127)
    scales[scales == 0] = 1
    return (weight / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def _int4(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words int32 [rows, depth / 8] and scales [rows, depth / group] in the weight's own number format."""
    groups = weight.float().view(len(weight), -1, group)
    peak = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    scales = (peak / -8).to(weight.dtype)
    scales[scales == 0] = 1
    whole = (groups / scales.float()[..., None]).round_().clamp_(-8, 7).to(torch.int32) + 8
    nibbles = whole.view(*groups.shape[:2], 8, group // 8)
    shifts = torch.arange(0, 32, 4, device=weight.device, dtype=torch.int32)
    return (nibbles << shifts[:, None]).sum(2, dtype=torch.int32).flatten(1), scales
