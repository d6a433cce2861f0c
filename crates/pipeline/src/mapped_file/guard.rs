//! What happens when a page of a mapped file cannot be read: the file was cut short, or its disk failed.
//!
//! The system answers with SIGBUS, which ends the process without a word. [`guard_mappings`] catches it: the lost pages
//! are replaced by zeros, the mapping remembers that, and whoever reads goes on to the check that each result must pass
//! ([`MappedFile::unchanged`](super::MappedFile::unchanged)), where the file's error comes out. A signal at any other address is
//! passed on to whoever handled it before. A handler belongs to the whole process, so that the programs of this project
//! (the command, the Python module) ask for it, and the libraries do not.
//!
//! Windows lets nobody cut a file that is mapped; there is nothing to guard.

/// Makes an error of a mapped file that is cut short while it is read, in place of the end of the process.
///
/// It is for programs to call, once and early; a later call changes nothing. On Unix it handles SIGBUS for the whole
/// process, and passes on what does not concern a file that is mapped here.
///
/// ```
/// palettizer_pipeline::mapped_file::guard_mappings();
/// ```
pub fn guard_mappings() {
    #[cfg(unix)]
    unix::install();
}

#[cfg(unix)]
pub(super) use unix::Watch;

#[cfg(not(unix))]
pub(super) use elsewhere::Watch;

#[cfg(not(unix))]
mod elsewhere {
    /// Nothing to watch.
    #[derive(Debug)]
    pub(in super::super) struct Watch;

    impl Watch {
        pub(in super::super) fn new(_mapped: &[u8]) -> Self {
            Self
        }

        pub(in super::super) fn lost(&self) -> bool {
            false
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, Once, OnceLock, PoisonError};

    /// The mappings there are, as a list that a signal handler may walk: nothing is ever taken out of it, but a place
    /// that is free is used again.
    static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

    /// Whoever takes a place holds this.
    static TAKING: Mutex<()> = Mutex::new(());

    /// What handled SIGBUS before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    static PAGE: AtomicUsize = AtomicUsize::new(4096);

    #[derive(Debug)]
    struct Place {
        /// Where the mapping begins; 0 in a free place.
        start: AtomicUsize,
        end: AtomicUsize,
        lost: AtomicBool,
        next: Option<&'static Place>,
    }

    /// The places, the latest first.
    fn places() -> impl Iterator<Item = &'static Place> {
        #[allow(unsafe_code)]
        // SAFETY: the pointer is null or one that `Watch::new` leaked, so that it is good for ever.
        let first: Option<&'static Place> = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
        std::iter::successors(first, |place| place.next)
    }

    /// A mapping that is watched until this is dropped.
    #[derive(Debug)]
    pub(in super::super) struct Watch(&'static Place);

    impl Watch {
        /// Watches these bytes, which are mapped. The mapping must outlive the watch.
        pub(in super::super) fn new(mapped: &[u8]) -> Self {
            let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
            let start = mapped.as_ptr().addr();
            let end = start + mapped.len();
            if let Some(free) = places().find(|place| place.start.load(Ordering::Acquire) == 0) {
                free.end.store(end, Ordering::Release);
                free.lost.store(false, Ordering::Release);
                free.start.store(start, Ordering::Release);
                return Self(free);
            }
            let place: &'static Place = Box::leak(Box::new(Place {
                start: AtomicUsize::new(start),
                end: AtomicUsize::new(end),
                lost: AtomicBool::new(false),
                next: places().next(),
            }));
            FIRST.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
            Self(place)
        }

        /// Whether a page of it could not be read.
        pub(in super::super) fn lost(&self) -> bool {
            self.0.lost.load(Ordering::Acquire)
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            self.0.start.store(0, Ordering::Release);
        }
    }

    #[allow(unsafe_code)]
    pub(super) fn install() {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            // SAFETY: the structures are plain data for which zeros are valid, and are filled in as the system asks. The
            // handler has the signature that SA_SIGINFO says, and does only what a handler may.
            unsafe {
                if let Ok(page) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) {
                    PAGE.store(page.max(1), Ordering::Relaxed);
                }
                let mut before: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) != 0 {
                    return;
                }
                // Known before the handler can need it.
                let _ = BEFORE.set(before);
                let mut action: libc::sigaction = std::mem::zeroed();
                let handler: extern "C" fn(_, _, _) = on_bus_error;
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
            }
        });
    }

    /// Takes no lock and no memory.
    #[allow(unsafe_code)]
    extern "C" fn on_bus_error(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: the system gives a valid `info`, whose address is set when the system itself sent the signal.
        let at = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
        match at {
            Some(at) if replace(at) => {}
            _ => pass_on(signal, info, context),
        }
    }

    /// Puts zeros where a watched mapping has lost its pages, from the page of this address to the mapping's end.
    #[allow(unsafe_code)]
    fn replace(at: usize) -> bool {
        let page = PAGE.load(Ordering::Relaxed);
        for place in places() {
            let start = place.start.load(Ordering::Acquire);
            let end = place.end.load(Ordering::Acquire);
            if start == 0 || !(start..end).contains(&at) {
                continue;
            }
            let from = at - at % page;
            place.lost.store(true, Ordering::Release);
            // SAFETY: the range lies in a mapping of ours that is alive, for somebody has just read in it, and is only
            // ever read: that its content changes is what its readers must expect of any mapped file. A mapping begins
            // at a page and covers the page of its last byte.
            let replaced = unsafe {
                libc::mmap(
                    ptr::with_exposed_provenance_mut(from),
                    end - from,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            return replaced != libc::MAP_FAILED;
        }
        false
    }

    /// What would have happened without this handler.
    #[allow(unsafe_code)]
    fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        type Plain = extern "C" fn(libc::c_int);
        let before = BEFORE.get();
        let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
        // SAFETY: a handler that the system gave back is a function of the signature that its flags say. What has none
        // ends the process, once this handler has returned.
        unsafe {
            if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            } else if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) {
                std::mem::transmute::<libc::sighandler_t, WithInfo>(handler)(signal, info, context);
            } else {
                std::mem::transmute::<libc::sighandler_t, Plain>(handler)(signal);
            }
        }
    }
}
