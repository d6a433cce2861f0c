//! Aligned columns, which give way in the middle of long names where a terminal is narrow.

use std::borrow::Cow;

use anstyle::Style;
use palettizer::visible;

use crate::output::STRONG;

/// Between two columns.
const GAP: usize = 2;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names; may be shortened to this many characters, but no further.
    Left {
        /// The fewest characters that a long name is cut to.
        least: usize,
    },
    /// Numbers.
    Right,
}

/// One line: its cells, and text in place of the columns after them.
pub(crate) struct Row {
    pub(crate) cells: Vec<String>,
    pub(crate) note: Option<String>,
    pub(crate) style: Style,
}

/// Columns with titles, and rows.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(columns: Vec<(&'static str, Align)>) -> Self {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.styled(Row {
            cells,
            note: None,
            style: Style::new(),
        });
    }

    pub(crate) fn styled(&mut self, mut row: Row) {
        for text in row.cells.iter_mut().chain(&mut row.note) {
            if let Cow::Owned(shown) = visible(text) {
                *text = shown;
            }
        }
        self.rows.push(row);
    }

    /// The table as text with styles, one line for each row, within `width` columns if names can be cut to that.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let titles = self.columns.iter().map(|(title, _)| (*title).to_owned());
        let mut text = String::new();
        let header = Row {
            cells: titles.collect(),
            note: None,
            style: STRONG,
        };
        for row in std::iter::once(&header).chain(&self.rows) {
            let line = self.line(row, &widths);
            let style = row.style;
            text.push_str(&format!("{style}{}{style:#}\n", line.trim_end()));
        }
        text
    }

    /// The width of each column: the widest cell, then cut from the left-set columns, the widest first.
    fn widths(&self, available: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, (title, _))| {
                let cells = self.rows.iter().filter_map(|row| row.cells.get(i));
                cells
                    .map(|cell| length(cell))
                    .fold(length(title), usize::max)
            })
            .collect();
        let Some(available) = available else {
            return widths;
        };
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        for _ in available..total {
            let widest = (widths.iter_mut().zip(&self.columns))
                .filter(|(width, (_, align))| matches!(align, Align::Left { least } if **width > *least))
                .max_by_key(|(width, _)| **width);
            match widest {
                Some((width, _)) => *width -= 1,
                None => break,
            }
        }
        widths
    }

    fn line(&self, row: &Row, widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, &width), (_, align)) in row.cells.iter().zip(widths).zip(&self.columns) {
            let cell = cut(cell, width);
            let padding = " ".repeat(width - length(&cell));
            match align {
                Align::Left { .. } => line.push_str(&format!("{cell}{padding}")),
                Align::Right => line.push_str(&format!("{padding}{cell}")),
            }
            line.push_str(&" ".repeat(GAP));
        }
        line.push_str(row.note.as_deref().unwrap_or_default());
        line
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Leaves out the middle of what is too long.
fn cut(text: &str, width: usize) -> String {
    let all = length(text);
    if all <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let head = kept / 2;
    let tail = all - (kept - head);
    let start = text.chars().take(head);
    start
        .chain(['…'])
        .chain(text.chars().skip(tail))
        .take(width)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(vec![
            ("weight", Align::Left { least: 8 }),
            ("bytes", Align::Right),
            ("SNR dB", Align::Right),
        ]);
        table.row(vec![
            "conv1_weight".to_owned(),
            "1,000".to_owned(),
            "20.1".to_owned(),
        ]);
        table.styled(Row {
            cells: vec!["näme".to_owned(), "7".to_owned()],
            note: Some("skipped: too small".to_owned()),
            style: Style::new(),
        });
        table
    }

    fn plain(text: &str) -> Vec<String> {
        let text = anstream::adapter::strip_str(text).to_string();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            plain(&example().render(None)),
            [
                "weight        bytes  SNR dB",
                "conv1_weight  1,000    20.1",
                "näme              7  skipped: too small",
            ]
        );
    }

    #[test]
    fn long_names_give_way_down_to_their_least() {
        for (width, name) in [
            (27, "conv1_weight"),
            (26, "conv1…eight"),
            (23, "con…ight"),
            (5, "con…ight"),
        ] {
            let lines = plain(&example().render(Some(width)));
            assert!(
                lines[1].starts_with(&format!("{name}  ")),
                "{width}: {lines:?}"
            );
        }
    }

    #[test]
    fn the_middle_is_left_out() {
        let table = [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "ab…ef"),
            ("abcdef", 4, "a…ef"),
            ("abcdef", 1, "…"),
            ("abcdef", 0, ""),
        ];
        for (text, width, expected) in table {
            assert_eq!(cut(text, width), expected);
        }
    }
}
