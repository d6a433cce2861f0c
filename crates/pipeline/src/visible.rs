//! Text from a file, made fit for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every character escaped that a terminal acts on, or that hides what is there: control characters (`\n`
/// and escape sequences among them), and those that turn the direction of the text around.
///
/// Names in a model are input from outside, and may be made to look like our own output or to move its cursor.
///
/// ```
/// use palettizer_pipeline::visible;
///
/// assert_eq!(visible("encoder.weight é 重み"), "encoder.weight é 重み");
/// assert_eq!(visible("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\\n\\u{202e}c");
/// ```
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_active) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match is_active(c) {
            true => write!(shown, "{}", c.escape_default()),
            false => shown.write_char(c),
        };
    }
    Cow::Owned(shown)
}

/// As [`visible`], for a message of several lines: a line of ours begins with two spaces after the first, and only
/// before those does a line end.
///
/// ```
/// use palettizer_pipeline::visible_lines;
///
/// assert_eq!(visible_lines("two:\n  a\n  b\nerror: c"), "two:\n  a\n  b\\nerror: c");
/// ```
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    const LINE: &str = "\n  ";
    if !text.contains(LINE) {
        return visible(text);
    }
    let lines: Vec<Cow<'_, str>> = text.split(LINE).map(visible).collect();
    Cow::Owned(lines.join(LINE))
}

fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
