//! Ctrl-C: whatever is unfinished on disk goes away first. A second one does not wait for that.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output;

/// Whether the first signal has come.
static SEEN: AtomicBool = AtomicBool::new(false);

/// Interrupted, as the shells count it; used for the second signal, which cleans nothing up.
const KILLED: i32 = 130;

/// Catches SIGINT, SIGTERM and SIGHUP from here on.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(set_handler);
}

fn set_handler() {
    let handler = || {
        if SEEN.swap(true, Ordering::SeqCst) {
            std::process::exit(KILLED);
        }
        // on a thread of its own, so that the second signal finds the handler free
        std::thread::spawn(|| {
            palettizer::remove_unfinished_output();
            output::error("interrupted; nothing unfinished was left behind");
            std::process::exit(1);
        });
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        output::warn(&format!(
            "Ctrl-C will leave unfinished files behind: {error}"
        ));
    }
}

/// After a signal, work fails because its files are going away: that is not worth a message of its own, and the
/// process is about to end.
pub(crate) fn wait_if_interrupted() {
    while SEEN.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
