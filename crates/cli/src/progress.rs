//! The progress bar: on stderr, and only if that is a terminal.

use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Voice;

/// How often the remaining time is shown anew.
const TICK: Duration = Duration::from_millis(200);

/// The weights that are done, of all, by their bytes; one bar from the first stage of a run to the end.
pub(crate) struct Bar {
    wanted: bool,
    /// The bar, and whether it counts bytes. Where no bytes are known it counts weights.
    bar: OnceLock<(ProgressBar, bool)>,
}

impl Bar {
    pub(crate) fn new(voice: Voice) -> Self {
        Bar {
            wanted: !voice.quiet && std::io::stderr().is_terminal(),
            bar: OnceLock::new(),
        }
    }
}

impl palettizer::Progress for Bar {
    fn start(&self, weights: usize, bytes: u64) {
        if !self.wanted {
            return;
        }
        let (bar, by_bytes) = self.bar.get_or_init(|| {
            let bar = ProgressBar::new(0);
            let template = "{bar:20} {percent:>3}%  {eta} left  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            (bar, bytes > 0)
        });
        // A second stage makes the bar longer, so that it never goes back to its start.
        bar.inc_length(if *by_bytes { bytes } else { weights as u64 });
    }

    fn advance(&self, name: &str, bytes: u64) {
        if let Some((bar, by_bytes)) = self.bar.get() {
            bar.set_message(palettizer::visible(name).into_owned());
            bar.inc(if *by_bytes { bytes } else { 1 });
        }
    }

    /// The weights are done; what is left is to write the rest.
    fn finish(&self) {
        if let Some((bar, _)) = self.bar.get() {
            bar.set_message("writing");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((bar, _)) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}
