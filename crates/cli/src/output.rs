//! The two streams: colours and widths on a terminal only, and a closed pipe that is nobody's fault.

use std::io::{self, IsTerminal as _, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use palettizer::visible_lines;
use terminal_size::Width;

use crate::failure::Failure;

/// Titles and totals.
pub(crate) const STRONG: Style = Style::new().bold();
/// What did not happen.
pub(crate) const FAINT: Style = Style::new().dimmed();

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

/// Where text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// stdout.
    Out,
    /// stderr.
    Err,
}

impl Stream {
    /// The columns of the terminal; `None` for a file or a pipe.
    pub(crate) fn width(self) -> Option<usize> {
        let size = match self {
            Stream::Out if io::stdout().is_terminal() => {
                terminal_size::terminal_size_of(io::stdout())
            }
            Stream::Err if io::stderr().is_terminal() => {
                terminal_size::terminal_size_of(io::stderr())
            }
            _ => None,
        };
        size.map(|(Width(columns), _)| usize::from(columns))
    }
}

/// Writes text, whose styles are dropped unless the stream is a terminal. A reader that has gone away
/// (`palettizer … | head`) has what it wanted.
pub(crate) fn print(stream: Stream, text: &str) -> Result<(), Failure> {
    let written = match stream {
        Stream::Out => write_all(AutoStream::auto(io::stdout()), text),
        Stream::Err => write_all(AutoStream::auto(io::stderr()), text),
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::about(
            match stream {
                Stream::Out => "stdout",
                Stream::Err => "stderr",
            },
            error,
        )),
        _ => Ok(()),
    }
}

fn write_all(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Says that something failed. A closed stderr leaves nobody to tell.
pub(crate) fn error(message: &str) {
    let message = visible_lines(message);
    let _ = print(Stream::Err, &format!("{RED}error:{RED:#} {message}\n"));
}

/// How much is said: under --quiet nothing but errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) quiet: bool,
}

impl Voice {
    /// Tells what was done. What a flag asks for as data is [`print`]ed instead.
    pub(crate) fn say(self, stream: Stream, text: &str) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        print(stream, text)
    }

    /// Says that something is odd.
    pub(crate) fn warn(self, message: &str) {
        if !self.quiet {
            warn(message);
        }
    }
}

/// Says that something is odd, and is no small talk.
pub(crate) fn warn(message: &str) {
    let message = visible_lines(message);
    let _ = print(
        Stream::Err,
        &format!("{YELLOW}warning:{YELLOW:#} {message}\n"),
    );
}
