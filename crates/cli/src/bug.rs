//! A fault of ours. A panic, on whatever thread, becomes one line that asks for a report; what was being written is
//! removed on the way, as after any error.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// How much work is under way that will say itself where it panicked.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Message and place of the last few panics: what is caught has no place any more.
static LAST: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// How many are kept.
const KEPT: usize = 16;

/// A panic that was caught.
///
/// ```
/// let bug = palettizer_cli::bug::caught(|| assert_eq!(1 + 1, 3, "sums are wrong")).unwrap_err();
/// let text = bug.to_string();
/// assert!(text.starts_with("this is a bug in palettizer 0.") && text.contains("sums are wrong"));
/// assert!(text.contains("please report it"));
/// ```
#[derive(Clone, Debug)]
pub struct Bug {
    message: String,
    place: Option<String>,
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, os, arch) = (
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
        );
        write!(f, "this is a bug in palettizer {version} ({os}, {arch}): ")?;
        write!(f, "{}", self.message.replace('\n', " "))?;
        if let Some(place) = &self.place {
            write!(f, " [{place}]")?;
        }
        write!(f, "; please report it, with this line and what you ran")
    }
}

impl std::error::Error for Bug {}

/// Does the work, and catches a panic of it or of a thread of rayon's that helps it.
///
/// Nothing is printed, unless `RUST_BACKTRACE` asks for it.
///
/// # Errors
/// [`Bug`] if it panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Bug> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            remember(panic);
            let wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
            if wanted || UNDER_WAY.load(Ordering::Relaxed) == 0 {
                before(panic);
            }
        }));
    });
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    // What the work has changed is its own or dropped with it; its callers see nothing of it.
    let done = catch_unwind(AssertUnwindSafe(work));
    UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    done.map_err(|payload| {
        let message = message(&*payload);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let at = last.iter().rposition(|(said, _)| *said == message);
        let place = at.map(|at| last.remove(at).1);
        Bug { message, place }
    })
}

fn remember(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    last.push((message(panic.payload()), place.unwrap_or_default()));
    let many = last.len().saturating_sub(KEPT);
    last.drain(..many);
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;
    use palettizer::{Mode, Nbits, PaletteSpec};
    use palettizer::{OpPalettizerConfig, OptimizationConfig, Progress, SaveOptions};
    use rayon::prelude::*;

    #[test]
    fn it_is_one_line_with_the_place_whatever_the_thread() {
        let here = caught(|| panic!("found {}\nand more", 7)).unwrap_err();
        let helper = || {
            (0..100)
                .into_par_iter()
                .for_each(|i| assert!(i < 99, "a helper's"))
        };
        let there = caught(helper).unwrap_err();
        for (bug, message) in [(here, "found 7 and more"), (there, "a helper's")] {
            let text = bug.to_string();
            assert!(text.contains(message) && text.contains("bug.rs:"), "{text}");
            assert!(text.contains(env!("CARGO_PKG_VERSION")) && !text.contains('\n'));
        }
        assert_eq!(caught(|| 5).unwrap(), 5);
    }

    /// A listener that panics in the middle of the work.
    struct Faulty;

    impl Progress for Faulty {
        fn advance(&self, _name: &str, _bytes: u64) {
            panic!("told to");
        }
    }

    #[test]
    fn nothing_is_left_of_what_was_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.mlpackage");
        let spec = PaletteSpec::new(Mode::Kmeans(Nbits::B4));
        let config = OptimizationConfig::new().with_global(Some(OpPalettizerConfig::new(spec)));
        let model = crate::demo_model().unwrap();
        let work = || model.palettize_to(&config, &out, SaveOptions::default(), &Faulty);
        assert!(caught(work).unwrap_err().to_string().contains("told to"));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
