"""The compute buffers, exactly: draw llama.cpp's worst-case graph, lay it out with ggml's own allocator.

How it works, in the order of the files
    tensor.py, ops.py     ggml's tensors and operations: shapes, strides, sources
    build.py              the order of computation (ggml_build_forward_expand)
    base.py, qkv.py, ffn.py, attention.py, recurrent.py, caches.py → context.py
                          `GraphContext`, the counterpart of llm_graph_context: blocks under llama.cpp's names
    blocks/               what several architectures share beyond llm_graph_context
    architectures/        one function `build(g)` per graph, most of them rows of one table (decoder.py, plain.py)
    layers.py             which of a model's equal layers must be drawn at all
    backends.py, cuda.py  what the backends differ in: sizes, supported operations, fusions
    scheduler.py          which backend computes what, where the graph is split, what is copied (ggml-backend.cpp)
    allocator.py          where each tensor lies (ggml-alloc.c); the answer is the high-water mark
    fused.py              which fused operations llama.cpp turns off after a trial
    samples.py, reuse.py  what other settings change of it, and what is kept
    segments.py, unfold.py, pieces.py, splits.py, stretches.py, laying.py → compose.py
                          other plans, of layers that were seen in such places before
`memory.compute` draws the graphs that llama_context::sched_reserve reserves for and takes the largest.

How to add an architecture
    1. Open llama.cpp's src/models/NAME.cpp and find its graph's constructor.
    2. If it is an ordinary decoder (norm, attention, add, norm, feed-forward, add), add a row to architectures/plain.py: the
       row's fields say what is not ordinary. Done.
    3. Else write architectures/NAME.py with `def build(g: GraphContext) -> None`, line by line after the C++:
         C++                                            here
         model.layers[il].wq, .wq_b, .wq_s              g.w("attn_q", il): weight, bias and scale at once, by the name in
                                                        the file; None where the file has none
         model.output_norm, model.tok_embd, .output     g.w("output_norm"), g.tok_embd, g.output
         hparams.n_head(il), n_ff(il), is_swa(il), …    g.hparams(il).n_head, .n_ff, .is_swa, .is_recurrent
         hparams.n_lora_q, ssm_d_inner, … (numbers)     g.hparam("n_lora_q"), g.hparam("ssm_d_inner")
         hparams.f_logit_scale, other floats, flags     g.get_float("logit_scale"), g.get_bool("…"): by their key
         ggml_mul_mat(ctx0, a, b)                       ggml.mul_mat(a, b)
         ggml_rope_ext(ctx0, q, pos, factors, n_rot, …) ggml.rope_ext(q, pos, factors): only what sizes need
         ggml_build_forward_expand(gf, cur)             g.expand(cur): wherever the C++ has it, it orders the graph
         ubatch.n_seqs, n_seq_tokens                    g.n_seqs, g.n_seq_tokens
         for (int il = 0; il < n_layer; ++il)           for il in g.layers():
         res->t_embd = cur; then the logits             g.build_output(cur), or g.keep_embd(cur) and the logits
       `g.layers()` leaves out layers that are equal to their neighbours by hparams(il) and by their tensors. What else
       depends on `il` goes into its key: g.layers(lambda il: (il + 1) % 4 != 0). State that one layer hands to later ones
       besides the residual belongs there too. Callbacks `cb` need nothing, except the pin for "norm" that build_norm makes.
       Register it in a family's table: plain.py, hybrids.py or latent.py, {"NAME": "module"}.
    4. Check it against the oracle: tests/memory/graph holds rows of the truth for every architecture.
"""

from fitplug.memory.graph.errors import UnknownGraphError

UnknownGraph = UnknownGraphError

__all__ = ["UnknownGraph", "UnknownGraphError"]
