//! A table at widths from that of a file to the narrowest.

use super::*;

fn example() -> Table {
    let mut table = Table::new(vec![
        Column::name("weight"),
        Column::text("consumer").leaves(2),
        Column::number("bytes"),
        Column::number("shape").leaves(1),
        Column::number("SNR dB"),
    ]);
    for (name, consumer, bytes) in [
        ("blocks_1_attn_q_proj_weight", "linear", "1,000"),
        ("blocks_10_attn_k_proj_weight", "conv", "100"),
        ("重み_weight", "conv", "7"),
    ] {
        let cells = [name, consumer, bytes, "64×3×3×3", "20.1"];
        table.row(cells.map(str::to_owned).to_vec());
    }
    table
}

fn plain(width: Option<usize>) -> Vec<String> {
    let text = example().render(width);
    let text = anstream::adapter::strip_str(&text).to_string();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_file_gets_it_all() {
    assert_eq!(
        plain(None),
        [
            "weight                        consumer  bytes     shape  SNR dB",
            "blocks_1_attn_q_proj_weight   linear    1,000  64×3×3×3    20.1",
            "blocks_10_attn_k_proj_weight  conv        100  64×3×3×3    20.1",
            "重み_weight                   conv          7  64×3×3×3    20.1",
        ]
    );
}

#[test]
fn columns_go_before_names_do() {
    assert_eq!(plain(Some(63)), plain(None));
    let table = [
        (62, "weight                        consumer  bytes  SNR dB"),
        (53, "weight                        consumer  bytes  SNR dB"),
        (52, "weight                        bytes  SNR dB"),
        (43, "weight                        bytes  SNR dB"),
        (30, "weight        bytes  SNR dB"),
    ];
    for (width, title) in table {
        assert_eq!(plain(Some(width))[0], title, "{width}");
    }
    assert_eq!(
        plain(Some(31))[1..],
        [
            "blocks_1_attn_q…  1,000    20.1",
            "blocks_10…k…        100    20.1",
            "重み_weight           7    20.1",
        ]
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in 27..120 {
        for line in plain(Some(width)) {
            assert!(columns(&line) <= width, "{width}: {line}");
        }
    }
}
