//! The names that models have, and what the presets say of them.

use super::*;

/// The bits that a weight gets, or none if it is left alone; `None` if the preset says nothing.
fn bits(name: &str, role: Option<Role>) -> Option<Option<Nbits>> {
    let entries = PresetEntries::new(Preset::Llm, None).unwrap();
    let entry = entries.entry(&[name], role)?;
    Some(entry.ok().and_then(|config| config.spec().mode().nbits()))
}

#[test]
fn names_of_checkpoints_and_of_programs() {
    let eight = Some(Some(Nbits::B8));
    let untouched = Some(None);
    let table = [
        // Llama, Mistral, Qwen2, Gemma, Phi-3
        ("model.embed_tokens.weight", eight),
        ("lm_head.weight", eight),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", untouched),
        ("model.layers.0.self_attn.q_proj.weight", None),
        ("model.layers.0.mlp.down_proj.weight", None),
        ("model.layers.31.post_attention_layernorm.weight", None),
        // GPT-2
        ("transformer.wte.weight", eight),
        ("wpe.weight", eight),
        ("h.0.attn.bias", untouched),
        ("h.0.attn.masked_bias", untouched),
        ("h.0.attn.c_attn.weight", None),
        // Llama as Meta stores it
        ("tok_embeddings.weight", eight),
        ("output.weight", eight),
        ("rope.freqs", untouched),
        ("layers.0.attention.wo.weight", None),
        // GPT-NeoX, ChatGLM, Phi-2, BERT's layers are no heads
        ("gpt_neox.embed_in.weight", eight),
        ("embed_out.weight", eight),
        ("transformer.output_layer.weight", eight),
        ("lm_head.linear.weight", eight),
        ("encoder.layer.0.output.dense.weight", None),
        ("encoder.layer.0.attention.output.weight", None),
        // as programs have them
        ("model_embed_tokens_weight_to_fp16", eight),
        ("lm_head_weight_to_fp16_palettized", eight),
        ("model_rotary_emb_cos_cached_to_fp16", untouched),
        ("causal_mask_to_fp16", untouched),
        ("cos", untouched),
        ("model_layers_0_mlp_up_proj_weight_to_fp16", None),
        ("cosine_proj_weight", None),
        ("mask_decoder.weight", None),
        ("mask_head.0.weight", None),
    ];
    for (name, expected) in table {
        assert_eq!(bits(name, None), expected, "{name}");
    }
    assert_eq!(bits("const_3", Some(Role::Head)), eight);
    assert_eq!(bits("const_3", Some(Role::Table)), untouched);
    // the name says it better than the use
    assert_eq!(bits("cos_cached", Some(Role::Embedding)), untouched);
}

#[test]
fn what_a_preset_does_not_say_is_the_global_configuration() {
    let spec = PaletteSpec::new(Mode::Uniform(Nbits::B2)).with_seed(7);
    let global = OpPalettizerConfig::new(spec).with_weight_threshold(9);
    let entries = PresetEntries::new(Preset::Llm, Some(&global)).unwrap();
    let Some(Ok(config)) = entries.entry(&["lm_head.weight"], None) else {
        panic!("no head");
    };
    assert_eq!(config.weight_threshold(), 9);
    assert_eq!(config.spec().seed(), 7);
    assert_eq!(config.spec().mode().nbits(), Some(Nbits::B8));
}

#[test]
fn presets_go_by_name() {
    for preset in Preset::ALL {
        assert_eq!(preset.name().parse(), Ok(preset));
    }
    let error = "LLM2".parse::<Preset>().unwrap_err();
    assert_eq!(error.to_string(), "unknown preset \"LLM2\"; expected llm");
}
