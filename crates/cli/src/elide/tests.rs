//! Names of many kinds in columns of many widths: they fit, and differ as long as there is room.

use super::*;

fn transformer(blocks: usize) -> Vec<String> {
    let parts = [
        "attn_q_proj",
        "attn_k_proj",
        "attn_o_proj",
        "mlp_up_proj",
        "mlp_down_proj",
    ];
    let block = |block| {
        let name = move |part| format!("model_blocks_{block}_{part}_weight_to_fp16");
        parts.into_iter().map(name)
    };
    (0..blocks).flat_map(block).collect()
}

#[test]
fn what_distinguishes_stays() {
    let names = transformer(12);
    for (width, first, second) in [
        (15, "…blocks_1…q…", "…blocks_10…k…"),
        (20, "…blocks_1_attn_q…", "…blocks_10_attn_k…"),
    ] {
        let short = shortened(&names, width);
        assert_eq!(
            (short[5].as_str(), short[51].as_str()),
            (first, second),
            "{width}"
        );
    }
    let block = |block| ["q", "k", "v"].map(|part| format!("blocks_{block}_attn_{part}_proj"));
    let names: Vec<String> = (0..12).flat_map(block).collect();
    let short = shortened(&names, 16);
    assert_eq!(
        (short[3].as_str(), short[31].as_str()),
        ("blocks_1…q_proj", "blocks_10…k_proj")
    );
}

#[test]
fn pieces_are_words_with_their_numbers() {
    let table: [(&str, &[&str]); 7] = [
        ("blocks_1_q_proj", &["blocks_1_", "q_", "proj"]),
        ("layers.10.weight", &["layers.10.", "weight"]),
        ("conv2d_3x3", &["conv2", "d_3", "x3"]),
        ("12_34", &["12_", "34"]),
        ("abcdefghijklmnop", &["abcdefghijkl", "mnop"]),
        ("重み_1", &["重", "み_1"]),
        ("", &[]),
    ];
    for (name, expected) in table {
        assert_eq!(pieces(name), expected, "{name}");
    }
}

#[test]
fn whatever_the_names_they_fit_and_differ() {
    let mut sets = vec![transformer(40)];
    let experts = |layer| {
        (0..8).map(move |expert| format!("layers.{layer}.experts.{expert}.w{}", expert % 3))
    };
    sets.push((0..32).flat_map(experts).collect());
    sets.push((0..300).map(|i| format!("{i:0>90}")).collect());
    sets.push(
        (0..300)
            .map(|i| format!("重み{}", "層".repeat(i % 40)) + &i.to_string())
            .collect(),
    );
    sets.push((0..60).map(|i| "e\u{301}".repeat(i) + "x").collect());
    sets.push((0..60).map(|i| "a.".repeat(i * 4)).collect());
    sets.push(
        (0..2000)
            .map(|i| format!("{}{}", "same".repeat(20), "x".repeat(i)))
            .collect(),
    );
    sets.push(vec![
        "twice".repeat(20),
        "twice".repeat(20),
        "once".repeat(20),
    ]);
    for names in sets {
        let distinct: HashSet<&String> = names.iter().collect();
        for width in [8, 12, 16, 24, 33, 60, 120] {
            let short = shortened(&names, width);
            for text in &short {
                assert!(columns(text) <= width, "{width}: {text}");
            }
            let left: HashSet<&String> = short.iter().collect();
            assert_eq!(left.len(), distinct.len(), "{width}: {:?}", &short[..3]);
        }
    }
}

#[test]
fn the_middle_is_left_out() {
    for (text, width, expected) in [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab…ef"),
        ("abcdef", 4, "a…ef"),
        ("abcdef", 1, "…"),
        ("abcdef", 0, ""),
        ("重み重み", 6, "重…み"),
    ] {
        assert_eq!(cut(text, width), expected, "{text} {width}");
    }
}
