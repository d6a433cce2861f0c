//! Text and the columns of a terminal that it takes: an ideograph takes two, a combining mark none.

use unicode_width::UnicodeWidthStr as _;

use crate::output::STRONG;

/// The columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// Breaks a text at spaces into lines of at most `width` columns, those after the first behind `indent`. A word that is
/// wider by itself gets a line of its own. Without a width there is nothing to break.
pub(crate) fn wrap(text: &str, width: Option<usize>, indent: &str) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let words = text.trim_start();
    let mut line = text[..text.len() - words.len()].to_owned();
    let mut lines = String::new();
    for (i, word) in words.split(' ').enumerate() {
        if i > 0 && columns(&line) + 1 + columns(word) > width {
            lines.push_str(&line);
            lines.push('\n');
            line = format!("{indent}{word}");
            continue;
        }
        if i > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &line
}

/// A paragraph as [`wrap`] sets it, whose first words stand out.
pub(crate) fn paragraph(first: &str, rest: &str, width: Option<usize>) -> String {
    let text = wrap(&format!("{first}{rest}"), width, "  ");
    match text.strip_prefix(first) {
        Some(rest) => format!("{STRONG}{first}{STRONG:#}{rest}"),
        None => text,
    }
}

/// A command for a shell, broken so that it can still be copied.
pub(crate) fn command(words: &[&str], width: Option<usize>) -> String {
    let width = width.map(|width| width.saturating_sub(2));
    let lines = wrap(&words.join(" "), width, "      ");
    lines.replace('\n', " \\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_a_terminal() {
        for (text, expected) in [
            ("abc", 3),
            ("é", 1),
            ("e\u{301}", 1),
            ("重み", 4),
            ("a\u{200b}b", 2),
            ("64×3", 4),
            ("", 0),
        ] {
            assert_eq!(columns(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_break_at_spaces() {
        let text = "one two three 重み four";
        for (width, expected) in [
            (None, text),
            (Some(80), text),
            (Some(13), "one two three\n  重み four"),
            (Some(8), "one two\n  three\n  重み\n  four"),
            (Some(3), "one\n  two\n  three\n  重み\n  four"),
        ] {
            assert_eq!(wrap(text, width, "  "), expected, "{width:?}");
        }
    }

    #[test]
    fn commands_go_on_behind_a_backslash() {
        let words = ["palettizer", "inspect", "Model.mlpackage", "--json"];
        assert_eq!(command(&words, Some(60)), words.join(" "));
        assert_eq!(
            command(&words, Some(30)),
            "palettizer inspect \\\n      Model.mlpackage --json"
        );
    }
}
