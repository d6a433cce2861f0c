//! Long work: on a thread pool, while the thread that asked for it stays responsive.
//!
//! The calling thread gives up the GIL and waits for news. Every [`POLL`] it asks whether a signal has come (Python
//! handles signals on its main thread alone); if one raises, or a listener does, the work is told to stop, is waited
//! for, and the exception goes on. Progress is told to the listener on the calling thread, in the order in which it
//! was made.
//!
//! Whatever is done for Python is done here, at length by [`run`] or at once by [`brief`]: a panic, on whatever thread, is
//! a fault of ours and becomes a `RuntimeError` that asks for a report.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use palettizer_cli::bug::{self, Bug};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Failure, bad_value};

/// How long a Ctrl-C may go unnoticed.
const POLL: Duration = Duration::from_millis(50);

/// The work's line to whoever waits for it.
pub(crate) struct Line<'a> {
    /// Set when the work is no longer wanted.
    pub(crate) stop: &'a AtomicBool,
    news: Sender<News>,
}

/// What a listener hears: a method's name and its arguments.
enum News {
    Start { weights: usize, bytes: u64 },
    Advance { name: String, bytes: u64 },
    Finish,
}

impl Line<'_> {
    fn tell(&self, news: News) {
        // nobody listens any more: the work is about to be stopped
        let _ = self.news.send(news);
    }
}

impl palettizer::Progress for Line<'_> {
    fn start(&self, weights: usize, bytes: u64) {
        self.tell(News::Start { weights, bytes });
    }

    fn advance(&self, name: &str, bytes: u64) {
        let name = name.to_owned();
        self.tell(News::Advance { name, bytes });
    }

    fn finish(&self) {
        self.tell(News::Finish);
    }

    fn stop(&self) -> Option<&AtomicBool> {
        Some(self.stop)
    }
}

/// Does work that is over soon, on this thread, without the GIL.
pub(crate) fn brief<T: Send, E: Into<Failure> + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    raised(bug::caught(|| py.detach(work)))
}

fn raised<T, E: Into<Failure>>(done: Result<Result<T, E>, Bug>) -> PyResult<T> {
    let done = done.map_err(|bug| PyRuntimeError::new_err(bug.to_string()))?;
    done.map_err(|error| error.into().0)
}

/// Does `work` on `threads` threads (`None`: one for each core) without the GIL.
///
/// `listener`, if there is one, has methods `start(weights, bytes)`, `advance(name, bytes)` and `finish()`.
pub(crate) fn run<T: Send, E: Into<Failure> + Send>(
    py: Python<'_>,
    threads: Option<usize>,
    listener: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Line<'_>) -> Result<T, E> + Send,
) -> PyResult<T> {
    run_until(py, threads, listener, &AtomicBool::new(false), work)
}

/// As [`run`]; whoever else holds `stop`, the flag that the work looks at, may end it.
pub(crate) fn run_until<T: Send, E: Into<Failure> + Send>(
    py: Python<'_>,
    threads: Option<usize>,
    listener: Option<&Bound<'_, PyAny>>,
    stop: &AtomicBool,
    work: impl FnOnce(&Line<'_>) -> Result<T, E> + Send,
) -> PyResult<T> {
    let (news, mut heard) = channel();
    let line = Line { stop, news };
    // A function of the caller's that is called from a pool has the pool's thread: it cannot wait for another.
    if rayon::current_thread_index().is_some() {
        return brief(py, || work(&line));
    }
    let pool = pool(threads)?;
    let mut result = None;
    let attended = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            // The line ends with the work, and with it the waiting.
            let line = line;
            result = Some(bug::caught(|| work(&line)));
        });
        attend(py, &mut heard, stop, listener)
    });
    attended?;
    raised(result.ok_or_else(|| bad_value("the work ended without a result"))?)
}

/// Most threads of a pool.
const MOST_THREADS: usize = 1024;

/// Panics, as a fault of ours would, on the thread that does the work or on one that helps it. For the tests of what
/// becomes of that; it does nothing else.
#[pyfunction]
pub(crate) fn panic_for_tests(py: Python<'_>, helped: bool) -> PyResult<()> {
    run(py, None, None, |_| {
        let work = |number: u32| assert!(number < 1000, "number {number} is too large");
        match helped {
            true => (0..1001).into_par_iter().for_each(work),
            false => work(1000),
        }
        Ok::<(), Failure>(())
    })
}

/// Listens until the work is done.
fn attend(
    py: Python<'_>,
    heard: &mut Receiver<News>,
    stop: &AtomicBool,
    listener: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    loop {
        let receiver = &mut *heard;
        let news = py.detach(move || receiver.recv_timeout(POLL));
        let told = match (news, listener) {
            (Err(RecvTimeoutError::Disconnected), _) => return py.check_signals(),
            (Ok(news), Some(listener)) => tell(listener, news),
            _ => Ok(()),
        };
        if let Err(error) = told.and_then(|()| py.check_signals()) {
            stop.store(true, Ordering::Relaxed);
            py.detach(move || while heard.recv().is_ok() {});
            return Err(error);
        }
    }
}

fn tell(listener: &Bound<'_, PyAny>, news: News) -> PyResult<()> {
    match news {
        News::Start { weights, bytes } => listener.call_method1("start", (weights, bytes)),
        News::Advance { name, bytes } => listener.call_method1("advance", (name, bytes)),
        News::Finish => listener.call_method0("finish"),
    }
    .map(drop)
}

/// A pool for each number of threads, made once. A process that was forked has none of its parent's threads, so it
/// makes pools of its own.
fn pool(threads: Option<usize>) -> PyResult<Arc<ThreadPool>> {
    type Pools = HashMap<(u32, usize), Arc<ThreadPool>>;
    static POOLS: LazyLock<Mutex<Pools>> = LazyLock::new(Mutex::default);

    if let Some(threads) = threads.filter(|threads| !(1..=MOST_THREADS).contains(threads)) {
        return Err(bad_value(format_args!(
            "threads is {threads}; expected 1 to {MOST_THREADS}, or None for one on each core"
        )));
    }
    let threads = threads.unwrap_or(0);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (std::process::id(), threads);
    if let Some(pool) = pools.get(&key) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = Arc::new(pool.map_err(|error| bad_value(format_args!("threads: {error}")))?);
    pools.insert(key, Arc::clone(&pool));
    Ok(pool)
}
