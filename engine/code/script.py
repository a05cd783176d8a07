"""A lane as a script of its own: transformers' generate, told what the plan says."""

from engine.code.form import Code, one_line
from engine.code.layout import Script, text
from engine.models.drafts import TRAINED
from engine.models.embedded import GGUF
from engine.models.resolve import RANDOM, gguf_file, resolve
from engine.plan import Plan
from engine.spec import Workload

OWN_LOOP = "Pitlane's own loop calls the same modules with less around them, so its steps take other times."


def script(plan: Plan, workload: Workload, title: str = "", lane: str = "") -> Code:
    """The lane of this plan as a script."""
    made = Script()
    for part in PARTS:
        part(plan, workload, made)
    what = f"Lane {one_line(lane)} of {one_line(title)}" if title else f"Lane {one_line(lane)}"
    return Code(text(made, plan, workload, f"{what}, as a script of its own."), tuple(made.beyond))


def _own_loop(plan: Plan) -> bool:
    return plan.backend != "generate"


def _weights(plan: Plan, workload: Workload, made: Script) -> None:
    made.imports |= {"import torch", "from transformers import AutoModelForCausalLM, AutoTokenizer"}
    made.load |= _loaded(plan.dtype, plan.quantization, plan.device, made)
    made.load["attn_implementation"] = f'"{plan.attention}"'
    source = resolve(plan.model)
    file = source.path and gguf_file(source.path)
    if name := GGUF if source.kind == "published" else file and file.name:
        made.beyond.append(f"The weights are a GGUF file: add gguf_file={name!r} to every from_pretrained.")


def _loaded(dtype: str, quantization: dict | None, device: str, made: Script) -> dict[str, str]:
    """Arguments of from_pretrained for a number format."""
    load = {"dtype": f"torch.{dtype}", "device_map": f'"{device}"'}
    if quantization:
        load["quantization_config"] = QUANTIZED[quantization["library"]](quantization, dtype, made)
    return load


def _bitsandbytes(knobs: dict, dtype: str, made: Script) -> str:
    made.needs.add("bitsandbytes")
    made.imports.add("from transformers import BitsAndBytesConfig")
    if knobs["kind"] == "int8":
        return f"BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold={knobs.get('threshold', 6.0)})"
    compute = knobs.get("compute", "auto")
    return (
        f"BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type={knobs['kind']!r}, bnb_4bit_compute_dtype="
        f"torch.{dtype if compute == 'auto' else compute}, bnb_4bit_use_double_quant={knobs.get('double', False)})"
    )


TORCHAO = {
    "int8-weight-only": "Int8WeightOnlyConfig()",
    "int8-dynamic": "Int8DynamicActivationInt8WeightConfig()",
    "fp8-weight-only": "Float8WeightOnlyConfig()",
    "fp8-dynamic": "Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())",
    "int4-weight-only": "Int4WeightOnlyConfig(group_size={group}, int4_packing_format='tile_packed_to_4d')",
}


def _torchao(knobs: dict, dtype: str, made: Script) -> str:
    config = TORCHAO[knobs["kind"]].format(**knobs)
    names = [config.partition("(")[0], *(["PerRow"] if "PerRow" in config else [])]
    made.needs.add("torchao")
    made.imports |= {
        "from transformers import TorchAoConfig",
        *(f"from torchao.quantization import {n}" for n in names),
    }
    return f"TorchAoConfig({config})"


QUANTIZED = {"bitsandbytes": _bitsandbytes, "torchao": _torchao}


def _attention(plan: Plan, workload: Workload, made: Script) -> None:
    backend = {"math": "MATH", "efficient": "EFFICIENT_ATTENTION", "flash": "FLASH_ATTENTION"}.get(plan.sdpa or "")
    if backend:
        made.imports.add("from torch.nn.attention import SDPBackend, sdpa_kernel")
        made.within.append(f"sdpa_kernel(SDPBackend.{backend})")
    if plan.sdpa == "efficient":
        made.imports.add("from transformers.integrations import sdpa_attention")
        made.settings.append("sdpa_attention.use_gqa_in_sdpa = lambda *_: False  # this kernel shares no heads")


def _sampling(plan: Plan, workload: Workload, made: Script) -> None:
    greedy = workload.temperature == 0
    made.options["do_sample"] = repr(not greedy)
    if not greedy:
        made.options |= {"temperature": repr(workload.temperature), "top_k": "0", "top_p": "1.0"}
        made.beyond.append("Samples are drawn in another order, so the text is another one.")
    made.options["repetition_penalty"] = "1.0"  # whatever the model's own settings say of it


def _cache(plan: Plan, workload: Workload, made: Script) -> None:
    made.options["use_cache"] = repr(plan.cache != "off")
    implementation = "offloaded" if plan.offload else {"static": "static"}.get(plan.cache)
    if implementation and plan.speculation:
        made.beyond.append("generate takes guesses back from a growing cache only.")
    elif implementation:
        made.options["cache_implementation"] = f'"{implementation}"'


def _compile(plan: Plan, workload: Workload, made: Script) -> None:
    if not plan.compile or plan.speculation:
        made.options["disable_compile"] = "True"
        made.beyond += ["generate does not compile while it guesses."] * bool(plan.compile)
        return
    if plan.quantization:
        made.beyond.append("generate compiles quantized weights only where it says that it can, and warns if not.")
    made.imports.add("from transformers import CompileConfig")
    if plan.device == "cpu":
        made.beyond.append("Weights are not packed into the compiled step: it would then fit one cache only.")
        if plan.compile == "max-autotune":
            made.imports.add("import torch._inductor.config")
            made.settings.append("torch._inductor.config.max_autotune = True")
        made.settings.append('compiled = CompileConfig(mode="default", dynamic=False)')
        made.settings.append("compiled._compile_all_devices = True  # generate compiles on a GPU only otherwise")
    else:
        mode = "reduce-overhead" if plan.compile == "default" else "max-autotune"
        made.settings.append(f"compiled = CompileConfig(mode={mode!r})")
    made.options["compile_config"] = "compiled"


def _speculation(plan: Plan, workload: Workload, made: Script) -> None:
    if plan.speculation:
        GUESSING[plan.speculation["kind"]](plan, made)
        if _own_loop(plan) and not (plan.draft or {}).get("layers"):
            made.beyond.append("generate guesses before it has read the prompt, so its steps hold other tokens.")
        if plan.dtype != "float32":
            made.beyond.append(
                "In 16 bits steps of other widths round otherwise, so the text may part from the lane's."
            )


def _lookup(plan: Plan, made: Script) -> None:
    made.options["prompt_lookup_num_tokens"] = repr(plan.speculation["guesses"])
    made.options["max_matching_ngram_size"] = repr(plan.speculation["ngram"])
    if plan.speculation["adaptive"]:
        made.beyond.append("Prompt lookup in generate always makes the same number of guesses.")


def _second(plan: Plan, made: Script) -> None:
    if plan.draft["model"] == TRAINED:
        made.beyond.append("The trained draft: generate takes whole models as drafts, and this one is a part of one.")
        return
    if plan.draft.get("packed"):
        made.beyond.append(
            f"The draft in {plan.draft['packed']['kind']} over the model's own cache: generate loads the model twice."
        )
    made.draft = _loaded(plan.draft["dtype"], plan.draft["quantization"], plan.device, made)
    made.options["assistant_model"] = "draft"
    made.prepared += _paced("draft", plan.speculation)


def _early_exit(plan: Plan, made: Script) -> None:
    made.options["assistant_early_exit"] = repr(plan.speculation["layers"])
    made.prepared += _paced("model", plan.speculation)


def _paced(name: str, knobs: dict) -> list[str]:
    """generate reads the pace of guessing off the assistant's own settings."""
    schedule = "heuristic_transient" if knobs["adaptive"] else "constant"
    return [
        f"{name}.generation_config.num_assistant_tokens = {knobs['guesses']}",
        f"{name}.generation_config.num_assistant_tokens_schedule = {schedule!r}",
        f"{name}.generation_config.assistant_confidence_threshold = 0.0",
    ]


GUESSING = {"prompt_lookup": _lookup, "draft_model": _second, "early_exit": _early_exit}


def _threads(plan: Plan, workload: Workload, made: Script) -> None:
    if plan.threads:
        made.settings.append(f"torch.set_num_threads({plan.threads})")


def _beyond(plan: Plan, workload: Workload, made: Script) -> None:
    """What generate has no word for."""
    made.beyond += [sentence for on, sentence in (
        (plan.model.startswith(RANDOM), "Pitlane makes random weights itself; this loads the trained ones."),
        (plan.window, "A window with attention sinks: all keys and values are kept, and the text is another one."),
        (plan.kv_bits, "Packed keys and values: they stay as computed, and the text may be another one."),
        (plan.continuous, "Continuous batching: the requests are answered one after another."),
        (plan.prefix, "Prefix reuse: every prompt is read in full."),
        (plan.merged, "Merged projections: the projections stay apart."),
        (plan.kernels, "Fused kernels: the layers run as transformers wrote them."),
        (plan.native, "The native step: the layers run as transformers wrote them, operator by operator."),
        (bool(plan.packed), "Packed weights: they stay in the number format that they were loaded in."),
        (plan.graph, "The CUDA graph: each kernel is started by the host."),
        (plan.replicas > 1, f"{plan.replicas} workers: one process answers all requests."),
        (plan.tensor_parallel > 1, f"{plan.tensor_parallel} ranks: the model stays whole."),
        (workload.open_loop, "Arrivals by the clock: all requests are there from the start."),
    ) if on]  # fmt: skip
    if _own_loop(plan):
        made.beyond.append(OWN_LOOP)


PARTS = (_weights, _attention, _sampling, _cache, _compile, _speculation, _threads, _beyond)
