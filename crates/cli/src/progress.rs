//! The progress bar: on stderr, and only if that is a terminal.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use indicatif::{ProgressBar, ProgressStyle};

/// Bytes of weights done, of all.
#[derive(Default)]
pub(crate) struct Bar {
    bar: OnceLock<ProgressBar>,
}

impl palettizer::Progress for Bar {
    fn start(&self, _weights: usize, bytes: u64) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_init(|| ProgressBar::new(bytes));
        let template = "{bar:30} {decimal_bytes}/{decimal_total_bytes} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    }

    fn advance(&self, name: &str, bytes: u64) {
        if let Some(bar) = self.bar.get() {
            bar.set_message(palettizer::visible(name).into_owned());
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    /// Clears what a failure has left on the terminal.
    fn drop(&mut self) {
        palettizer::Progress::finish(self);
    }
}
