"""MCP: tools by which an assistant does an experiment by itself, for the package `mcp` (Model Context Protocol).

It is optional: pip install mcp. The page then serves the tools at /mcp, `python -m engine mcp` on standard input. A
Space brings version 1 with Gradio, where the server has another name and takes its settings when it is made.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from engine.commands.estimate import foretold
from engine.commands.optimizations import rows
from engine.console import phase_text, table
from engine.event import Finished, Phase, Record
from engine.measure.machine import machine
from engine.measure.metrics import METRICS
from engine.measure.verdict import together
from engine.models.catalogue import MODELS
from engine.presets import presets
from engine.public import offered, public, sentence
from engine.refusal import Refusal
from engine.registry import optimizations
from engine.run.jobs import Jobs
from engine.spec import DEFAULT_MODEL, Experiment

try:
    import mcp.server.transport_security as security

    try:
        from mcp.server.mcpserver import Context, MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        from mcp.server.fastmcp import Context, FastMCP
        from mcp.server.fastmcp.exceptions import ToolError

        MCPServer = None
except ImportError:
    Context = security = None

LOOK_S = 0.2
GOING = ("queued", "running")
MANNER = """Pitlane measures what inference optimizations of language models buy. An experiment is a JSON object:
`lanes` (one to four, by name), one `workload`, a `model` and how many `rounds` the lanes take in turns. For example
{"model": "smollm2-135m", "rounds": 8, "workload": {"prompts": ["Explain why the sky is blue."], "max_new_tokens": 64},
"lanes": {"A": {}, "B": {"opts": {"prompt_lookup": {"guesses": 4}}}}}
`opts` switches optimizations on by name, each with its knobs, or {} for their defaults; an empty lane is the baseline,
and the first lane is what others are compared with. Change one thing between two lanes. One round is a quick look, six
or more give a verdict. First list_optimizations, then estimate, then run_experiment, then explain_result."""


def installed() -> bool:
    """Whether the package is there."""
    return Context is not None


def _serving() -> tuple[Any, dict[str, Any]]:
    """A server, and what its web application is made with; it keeps no sessions, and the page asks who comes."""
    lax = security.TransportSecuritySettings(enable_dns_rebinding_protection=False)
    how = {"stateless_http": True, "transport_security": lax}
    told = {"name": "pitlane", "instructions": MANNER, "log_level": "WARNING"}
    return (MCPServer(**told), how) if MCPServer else (FastMCP(**told, **how), {})


class Tools:
    """The tools over `jobs`; `owner` says in whose name a run is started."""

    def __init__(self, jobs: Jobs, owner: Callable[[], str]):
        self.jobs, self.owner = jobs, owner
        self.server, self.how = _serving()
        for tool in (
            self.list_optimizations,
            self.list_models,
            self.estimate,
            self.run_experiment,
            self.explain_result,
        ):
            self.server.add_tool(tool)

    def route(self) -> Any:
        """The route /mcp of an application that stays in `serving` while it lives."""
        return self.server.streamable_http_app(**self.how).routes[0]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with self.server.session_manager.run():
            yield

    def list_optimizations(self, group: str = "") -> dict[str, Any]:
        """What a lane can switch on: each optimization's name, group, lesson, knobs, whether it is lossless, and why it
        is unavailable on this machine where it is. `group` narrows the list, for instance "speculation"."""
        found = rows()
        groups = dict.fromkeys(row["group"] for row in found)
        if group and group not in groups:
            raise ToolError(f"There is no group {group!r}. There are {', '.join(groups)}.")
        knobs = {name: part.model_json_schema().get("properties", {}) for name, part in optimizations().items()}
        wanted = [row for row in found if group in ("", row["group"])]
        return {"optimizations": [{**row, "knobs": knobs[row["name"]]} for row in wanted]}

    def list_models(self) -> dict[str, Any]:
        """The models that an experiment can name, with their sizes, and ready-made experiments with their questions."""
        gpu = bool(machine().gpus)
        names = offered(gpu) if public() else list(MODELS)
        models = [{"name": name, "parameters": MODELS[name].parameters, "context": MODELS[name].context,
                   "gated": MODELS[name].gated, "default": name == DEFAULT_MODEL} for name in names]  # fmt: skip
        asked = [{"question": one.title, "experiment": one.to_dict()} for one in presets().values()]
        return {"models": models, "limits": sentence(gpu) if public() else "", "questions": asked}

    def estimate(self, experiment: dict[str, Any]) -> dict[str, Any]:
        """What each lane of an experiment will take and do at best, told in a moment, without loading anything: bytes
        of memory needed and free, whether it fits, and the shortest times to the first token and per token."""
        made = _read(experiment)
        return {"lanes": {name: _told(foretold(made, name)) for name in made.lanes}}

    async def run_experiment(self, experiment: dict[str, Any], ctx: Context) -> dict[str, Any]:
        """Run an experiment to its end, which takes seconds to minutes, and tell what came of it: the verdict in a
        sentence, a table of all lanes, and the run's id for explain_result."""
        try:
            owner = self.owner()
            run = await asyncio.to_thread(self.jobs.submit, _read(experiment), owner)
        except Refusal as refusal:
            raise ToolError(str(refusal)) from None
        try:
            await self._follow(run, ctx)
        except asyncio.CancelledError:
            self.jobs.cancel(run, owner)
            raise
        result = self.jobs.result(run)
        return {"run": run, "state": self.jobs.state(run), "verdict": _verdict(result), "table": table(result),
                "lanes": {lane["name"]: _lane(lane) for lane in result["lanes"]}}  # fmt: skip

    def explain_result(self, run: str) -> dict[str, Any]:
        """Why a run came out as it did, from its own figures: the verdict, and for each lane what was found and what to
        try next, as changes of its lane by address. `run` is the id that run_experiment has told."""
        try:
            result, state = self.jobs.result(run), self.jobs.state(run)
        except Refusal as refusal:
            raise ToolError(str(refusal)) from None
        if not result:
            raise ToolError(f"This run is {state}: it has no result yet.")
        lanes = {lane["name"]: {**_lane(lane), "findings": lane["findings"], "ceiling": lane["ceiling"]}
                 for lane in result["lanes"]}  # fmt: skip
        return {"run": run, "state": state, "verdict": _verdict(result), "lanes": lanes}

    async def _follow(self, run: str, ctx: Context) -> None:
        """Say how far it is whenever that has changed."""
        experiment = self.jobs.experiment(run)
        turns, seen, done, said = len(experiment.lanes) * experiment.rounds, 0, 0, ""
        while self.jobs.state(run) in GOING:
            self.jobs.watch(run)
            records = self.jobs.records(run, seen)
            seen += len(records)
            done += sum(isinstance(record.event, Finished) and record.round is not None for record in records)
            told = _progress(records, list(experiment.lanes)) or (f"{done} of {turns} turns" if seen else "waiting")
            if told != said:
                await ctx.report_progress(min(done, turns), turns, told)
                said = told
            await asyncio.sleep(LOOK_S)


def _read(experiment: dict[str, Any]) -> Experiment:
    try:
        return Experiment.read(experiment)
    except Refusal as refusal:
        raise ToolError(str(refusal)) from None


def _progress(records: list[Record], names: list[str]) -> str:
    """The last phase that was begun, if any was."""
    begun = [record for record in records if isinstance(record.event, Phase)]
    return f"lane {names[begun[-1].lane]}: {phase_text(begun[-1].event)}" if begun else ""


def _verdict(result: dict[str, Any]) -> str:
    headline = next(iter(METRICS))
    return " ".join(said for _, said in together(one for one in result["verdicts"] if one["metric"] == headline))


def _lane(lane: dict[str, Any]) -> dict[str, Any]:
    told = {name: lane[name] for name in ("status", "why", "hint", "metrics")}
    return told | {"text": lane["text"][:1], "unmet": lane["effective"].get("unmet", [])}


def _told(found: dict[str, Any]) -> dict[str, Any]:
    if "why" in found:
        return found
    fitted, phases = found["fit"], found["ceiling"]
    best = {f"{phase}_ms": phases[phase]["predicted_ms"] for phase in ("prefill", "decode")}
    bound = {f"{phase}_bound": phases[phase]["bound"] for phase in ("prefill", "decode")}
    memory = {"needed_bytes": fitted["needed"], "free_bytes": fitted["room"], "fits": fitted["fits"]}
    return {**memory, "weights_bytes": fitted["weights"], "kv_bytes": fitted["kv"], **best, **bound,
            "tok_per_s_at_most": found["tok_per_s"], "with_every_guess_right": found["guesses"]}  # fmt: skip
