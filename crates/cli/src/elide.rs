//! Names cut to the width of a column, each by what it shares with the others, so that they still differ.
//!
//! A name is pieces: words and their numbers, with the separators after them. A piece that few names have says more than
//! one that all have. Of each name those pieces are kept that say most, and an ellipsis stands for what is left out:
//! of `model_blocks_1_attn_q_proj_weight` among its like, `blocks_1…q_proj`.

use std::collections::{HashMap, HashSet};

use unicode_width::UnicodeWidthChar as _;

use crate::width::columns;

/// A piece is cut where it gets wider than this.
const WIDEST_PIECE: usize = 12;
/// The pieces of a longer name are not weighed: it is not a name for people.
const MOST_PIECES: usize = 128;

/// What a column of text is worth, in thousandths of what it tells.
const COLUMN: i64 = 10;
/// What an ellipsis costs.
const GAP: i64 = 70;
/// What the last place in a name is worth over the first: names end with what they are.
const LAST: i64 = 40;

/// The names in at most `width` columns. Names that differ stay different, as long as the width leaves room for a number.
pub(crate) fn shortened(names: &[String], width: usize) -> Vec<String> {
    if names.iter().all(|name| columns(name) <= width) {
        return names.to_vec();
    }
    let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mut owners: HashMap<&str, usize> = HashMap::new();
    for name in &distinct {
        let own: HashSet<&str> = pieces(name).into_iter().collect();
        for piece in own {
            *owners.entry(piece).or_default() += 1;
        }
    }
    let tells = |piece: &str| {
        let share = owners.get(piece).copied().unwrap_or(1) as f64 / distinct.len() as f64;
        (-1000.0 * share.ln()).round() as i64
    };
    // What fits is there in full, and its like cannot be given to another.
    let fitting = distinct.iter().filter(|name| columns(name) <= width);
    let mut taken: HashSet<String> = fitting.map(|name| (*name).to_owned()).collect();
    let mut done: HashMap<&str, String> = HashMap::new();
    for name in names {
        if columns(name) > width && !done.contains_key(name.as_str()) {
            let short = different(one(name, width, &tells), width, &taken);
            taken.insert(short.clone());
            done.insert(name, short);
        }
    }
    let short = |name: &String| done.get(name.as_str()).unwrap_or(name).clone();
    names.iter().map(short).collect()
}

/// The text with a number behind it, if it is taken.
fn different(text: String, width: usize, taken: &HashSet<String>) -> String {
    if !taken.contains(&text) {
        return text;
    }
    let numbered = (2..).map(|number: u64| {
        let number = format!("~{number}");
        let room = width.saturating_sub(columns(&number));
        format!("{}{number}", cut(&text, room))
    });
    let mut free = numbered.filter(|text| !taken.contains(text));
    free.next().unwrap_or(text)
}

/// The words of a name with their numbers and the separators after them.
fn pieces(name: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut wide, mut last) = (0, 0, None);
    for (at, char) in name.char_indices() {
        let own = char.width().unwrap_or(0);
        let begins = match (last.map(kind), kind(char)) {
            // Numbers stay with the word before them, if there is one.
            (Some(Kind::Separator), Kind::Word) | (Some(Kind::Digit), Kind::Word) => true,
            (Some(Kind::Separator), Kind::Digit) => {
                name[start..at].starts_with(|first| kind(first) == Kind::Digit)
            }
            (Some(_), Kind::Wide) | (Some(Kind::Wide), Kind::Word | Kind::Digit) => true,
            _ => false,
        };
        // A mark belongs to the character before it, and a number is not cut.
        let too_wide = own > 0 && kind(char) != Kind::Digit && wide + own > WIDEST_PIECE;
        if at > start && (begins || too_wide) {
            pieces.push(&name[start..at]);
            (start, wide) = (at, 0);
        }
        wide += own;
        last = Some(char);
    }
    if start < name.len() {
        pieces.push(&name[start..]);
    }
    pieces
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Digit,
    Separator,
    Wide,
}

fn kind(char: char) -> Kind {
    match char {
        '_' | '.' | '/' | ':' | '-' | ' ' => Kind::Separator,
        _ if char.is_ascii_digit() => Kind::Digit,
        _ if char.width() == Some(2) => Kind::Wide,
        _ => Kind::Word,
    }
}

fn separated(piece: &str) -> bool {
    piece.ends_with(|last| kind(last) == Kind::Separator)
}

/// One name in at most `width` columns.
fn one(name: &str, width: usize, tells: &dyn Fn(&str) -> i64) -> String {
    let pieces = pieces(name);
    if pieces.len() > MOST_PIECES {
        return cut(name, width);
    }
    let kept = best(&pieces, width, tells);
    let mut text = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        match (kept[i], i.checked_sub(1).is_none_or(|before| kept[before])) {
            (true, _) => text.push_str(piece),
            (false, true) => {
                if separated(&text) {
                    text.pop();
                }
                text.push('…');
            }
            (false, false) => {}
        }
    }
    text
}

/// Which pieces are kept: those that tell most together, of all choices that fit.
fn best(pieces: &[&str], width: usize, tells: &dyn Fn(&str) -> i64) -> Vec<bool> {
    let widths: Vec<usize> = pieces.iter().map(|piece| columns(piece)).collect();
    // The ellipsis takes the place of the separator before it.
    let gap = |at: usize| match at.checked_sub(1) {
        Some(before) => usize::from(!separated(pieces[before])),
        None => 1,
    };
    let rows = width + 1;
    let place =
        |at: usize, room: usize, after_kept: bool| (at * rows + room) * 2 + usize::from(after_kept);
    const NEVER: i64 = i64::MIN / 2;
    // The most that the pieces from one on can tell in so much room, by whether the one before it is kept.
    let mut most = vec![NEVER; (pieces.len() + 1) * rows * 2];
    let end = place(pieces.len(), 0, false);
    most[end..].fill(0);
    let skipping = |most: &[i64], at: usize, room: usize, after_kept: bool| {
        let (cost, price) = if after_kept { (gap(at), GAP) } else { (0, 0) };
        let left = room.checked_sub(cost);
        left.map_or(NEVER, |left| most[place(at + 1, left, false)] - price)
    };
    let keeping = |most: &[i64], at: usize, room: usize| {
        let late = LAST * at as i64 / pieces.len() as i64;
        let worth = tells(pieces[at]) + COLUMN * widths[at] as i64 + late;
        let left = room.checked_sub(widths[at]);
        left.map_or(NEVER, |left| most[place(at + 1, left, true)] + worth)
    };
    for at in (0..pieces.len()).rev() {
        for room in 0..rows {
            for after_kept in [false, true] {
                let value = skipping(&most, at, room, after_kept).max(keeping(&most, at, room));
                most[place(at, room, after_kept)] = value;
            }
        }
    }
    let (mut room, mut after_kept) = (width, true);
    let mut kept = Vec::with_capacity(pieces.len());
    for (at, &own) in widths.iter().enumerate() {
        let keep = keeping(&most, at, room) >= skipping(&most, at, room, after_kept);
        let cost = match (keep, after_kept) {
            (true, _) => own,
            (false, true) => gap(at),
            (false, false) => 0,
        };
        room = room.saturating_sub(cost);
        after_kept = keep;
        kept.push(keep);
    }
    kept
}

/// A text whose middle is left out where it is too wide.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = fitting(text.chars(), room / 2);
    let tail = fitting(text.chars().rev(), room - columns(&head));
    let ellipsis = if width > 0 { "…" } else { "" };
    head + ellipsis + &tail.chars().rev().collect::<String>()
}

/// The first characters, as many as fit.
fn fitting(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut left = width;
    chars
        .take_while(|char| {
            let rest = left.checked_sub(char.width().unwrap_or(0));
            left = rest.unwrap_or(0);
            rest.is_some()
        })
        .collect()
}

#[cfg(test)]
mod tests {
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
}
