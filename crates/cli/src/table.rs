//! Aligned columns that fit a terminal: first the columns that tell least go, then the middles of long names.

use palettizer::visible;

use crate::elide;
use crate::output::STRONG;
use crate::width::columns;

/// Between two columns.
const GAP: usize = 2;
/// The fewest columns that names are cut to.
const LEAST_NAME: usize = 12;

/// A column: its title, how it is set, and whether it may go.
pub(crate) struct Column {
    title: &'static str,
    kind: Kind,
    /// When it goes, if the terminal is too narrow: the lowest first; `None` if never.
    leaves: Option<u8>,
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On the left; cut where the terminal is narrow, so that names that differ stay different.
    Name,
    /// On the left.
    Text,
    /// On the right.
    Number,
}

impl Column {
    /// What the rows are about.
    pub(crate) fn name(title: &'static str) -> Self {
        Self::of(title, Kind::Name)
    }

    pub(crate) fn text(title: &'static str) -> Self {
        Self::of(title, Kind::Text)
    }

    pub(crate) fn number(title: &'static str) -> Self {
        Self::of(title, Kind::Number)
    }

    fn of(title: &'static str, kind: Kind) -> Self {
        Column {
            title,
            kind,
            leaves: None,
        }
    }

    /// Lets it go where the terminal is too narrow for all: `order` 1 before 2.
    pub(crate) fn leaves(mut self, order: u8) -> Self {
        self.leaves = Some(order);
        self
    }
}

/// Columns with titles, and rows.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a line, with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let shown = cells.iter().map(|cell| visible(cell).into_owned());
        self.rows.push(shown.collect());
    }

    /// The table as text with styles, one line for each row. Without a width, as for a file, nothing is left out.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let shown = self.shown(width);
        let mut cells: Vec<Vec<String>> = shown.iter().map(|&at| self.cells(at)).collect();
        if let Some(width) = width {
            self.shorten(&shown, &mut cells, width);
        }
        let widths: Vec<usize> = cells.iter().map(|column| widest(column)).collect();
        let mut text = String::new();
        for line in 0..=self.rows.len() {
            let mut row = String::new();
            for ((column, &width), &at) in cells.iter().zip(&widths).zip(&shown) {
                let cell = column.get(line).map_or("", String::as_str);
                let padding = " ".repeat(width - columns(cell));
                match self.columns[at].kind {
                    Kind::Number => row.push_str(&format!("{padding}{cell}")),
                    Kind::Name | Kind::Text => row.push_str(&format!("{cell}{padding}")),
                }
                row.push_str(&" ".repeat(GAP));
            }
            match line {
                0 => text.push_str(&format!("{STRONG}{}{STRONG:#}\n", row.trim_end())),
                _ => text.push_str(&format!("{}\n", row.trim_end())),
            }
        }
        text
    }

    /// The title of a column, and its cells.
    fn cells(&self, at: usize) -> Vec<String> {
        let cells = self.rows.iter();
        let cells = cells.map(|row| row.get(at).cloned().unwrap_or_default());
        let title = self.columns[at].title.to_owned();
        std::iter::once(title).chain(cells).collect()
    }

    /// The columns that stay: all that fit, and those that never go.
    fn shown(&self, width: Option<usize>) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(width) = width else { return shown };
        let widths: Vec<usize> = shown.iter().map(|&at| widest(&self.cells(at))).collect();
        while total(shown.iter().map(|&at| widths[at])) > width {
            let leaving = (shown.iter().enumerate())
                .filter_map(|(i, &at)| Some((self.columns[at].leaves?, i)))
                .min();
            match leaving {
                Some((_, i)) => shown.remove(i),
                None => break,
            };
        }
        shown
    }

    /// Cuts names to what the other columns leave.
    fn shorten(&self, shown: &[usize], cells: &mut [Vec<String>], width: usize) {
        let all = total(cells.iter().map(|column| widest(column)));
        let name = shown
            .iter()
            .position(|&at| self.columns[at].kind == Kind::Name);
        if let Some(name) = name.and_then(|at| cells.get_mut(at)) {
            let others = all - widest(name);
            let room = width.saturating_sub(others).max(LEAST_NAME);
            let short = elide::shortened(&name[1..], room);
            name.truncate(1);
            name.extend(short);
        }
    }
}

fn widest(cells: &[String]) -> usize {
    cells.iter().map(|cell| columns(cell)).max().unwrap_or(0)
}

/// The columns of a line with columns of these widths.
fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths
        .map(|width| width + GAP)
        .sum::<usize>()
        .saturating_sub(GAP)
}

#[cfg(test)]
mod tests;
