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
mod tests;
