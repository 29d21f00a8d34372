"""Writes the variants of a release: the graph by the first route that fits, the card, the tokenizer and the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from trainers.export.attention import attention_of
from trainers.export.release import GRAPH, ExportError, ModelInterface, ModelParts, write_release
from trainers.model.base import Base
from trainers.model.source import positions_of
from trainers.prepare.release_routes import Route, routes, why_unreleasable
from trainers.protocol.requests import Export
from trainers.protocol.trial_spec import Workload
from trainers.runtime.card import CLASSIFYING, GENERATIVE, REWRITING, SIMILARITY
from trainers.tasks.instruct import answer_template
from trainers.tasks.next_token import has_learned_prompt


def write_variants(base: Base, tokenizer: Any, request: Export, out_dir: Path) -> tuple[list[str], dict[str, str]]:
    """Write a release folder for each of the request's variants; their names, and why the others could not be made."""
    workload, method = request.spec.workload, request.spec.method
    model = base.model.get_base_model() if has_learned_prompt(base.model) else base.model
    tried = routes(workload.task, type(model).__name__, method)
    if not tried:
        why = why_unreleasable(workload.task, type(model).__name__, method)
        return [], dict.fromkeys(request.variants, str(why))
    interface = interface_of(base, workload, request.inspection.max_length)
    parts = ModelParts(tokenizer, model.config, getattr(model, "generation_config", None))
    done: list[str] = []
    failures: dict[str, str] = {}
    route: Route | None = None
    for variant in sorted(request.variants, key=lambda name: name != "fp32"):  # the others are made from it
        try:
            route = _write_graph(base.model, tokenizer, out_dir, variant, route, tried)
            graph = onnx.load(out_dir / variant / GRAPH, load_external_data=False).graph
            made = replace(
                interface, route=route.name, cache="appended" if route.appends_cache else "in place",
                target=request.target, attention="" if route.tasks == GENERATIVE else attention_of(graph),
            )  # fmt: skip
            write_release(out_dir / variant, variant, made, parts)
            done.append(variant)
        except ExportError as error:
            failures[variant] = str(error)
    return done, failures


def _write_graph(
    model: Any, tokenizer: Any, out_dir: Path, variant: str, taken: Route | None, tried: list[Route]
) -> Route:
    """Write one variant's graph; the route that was taken. Raises `ExportError`."""
    from trainers.export.decoder import export_decoder, quantize_decoder
    from trainers.export.encoder import export_embedding, export_encoder
    from trainers.export.reading import quantize_reading
    from trainers.export.rewriter import export_rewriter, quantize_rewriter

    folder, fp32_dir, route = out_dir / variant, out_dir / "fp32", taken or tried[0]
    made = {name for names in route.made.values() for name in names}
    if variant not in made:
        raise ExportError(f"the route {route.name!r} makes {', '.join(sorted(made))}")
    if route.name in ("traced encoder", "traced embedding"):
        if variant != "fp32":
            quantize_reading(fp32_dir, folder, variant)
        elif route.name == "traced encoder":
            export_encoder(model, tokenizer, folder)
        else:
            export_embedding(model, folder)
    elif route.name == "traced encoder-decoder":
        if variant == "fp32":
            export_rewriter(model, folder)
        else:
            quantize_rewriter(fp32_dir, folder)
    elif variant == "fp32":
        route = export_decoder(model, tokenizer, folder, tried)
    else:
        quantize_decoder(fp32_dir, folder, variant, route)
    return route


def interface_of(base: Base, workload: Workload, cut_at: int | None) -> ModelInterface:
    """The inputs and answers of a release; `cut_at` is where prepared texts were cut, in tokens."""
    task, max_length = workload.task, cut_at or workload.max_length
    if task in CLASSIFYING:
        columns = [role for role in ("text", "text_pair") if role in workload.data.columns]
        return ModelInterface(task, base.labels, max_length, columns)
    if task == SIMILARITY:  # both texts of a row share its length
        return ModelInterface(task, base.labels, max_length // 2, ("text", "text_pair"))
    if task == REWRITING:
        start = int(base.model.config.decoder_start_token_id)
        forced = _forced_tokens(base.model.generation_config)
        return ModelInterface(task, (), max_length, ("input",), start_token_id=start, forced_tokens=forced)
    context = _context(base.model) or max_length
    if task != "instruct":
        return ModelInterface(task, base.labels, context)
    template = answer_template(workload.data.columns)
    return ModelInterface(
        task, base.labels, context, template.columns, template.before, template.after, template.is_followed
    )


def _context(model: Any) -> int | None:
    """Tokens that prompt and answer may have together; None without a limit. A learned prompt takes its own."""
    positions = positions_of(model)
    learned = model.active_peft_config.num_virtual_tokens if has_learned_prompt(model) else 0
    return None if positions is None else positions - learned


def _forced_tokens(generation: Any) -> dict[str, int]:
    """The tokens that transformers makes an answer begin and end with, where the checkpoint names them."""
    named = {"first": generation.forced_bos_token_id, "last": generation.forced_eos_token_id}
    return {place: int(token) for place, token in named.items() if isinstance(token, int)}
