"""The kinds of studies by the names under which the history keeps them."""

from engine.run.ablate import Ablation
from engine.run.search import Search
from engine.run.study import Study
from engine.run.sweep import Sweep

KINDS: dict[str, type[Study]] = {one.kind: one for one in (Sweep, Ablation, Search)}
