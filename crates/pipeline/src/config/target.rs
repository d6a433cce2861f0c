//! Deployment targets: what they are called, and the numbers that stand for them in a file.

use std::fmt;
use std::str::FromStr;

/// The oldest system that a program may run on; it decides which opset the program is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Target {
    IOS15,
    IOS16,
    IOS17,
    IOS18,
    IOS26,
}

impl Target {
    /// Every target, the oldest first.
    pub const ALL: [Target; 5] = [
        Target::IOS15,
        Target::IOS16,
        Target::IOS17,
        Target::IOS18,
        Target::IOS26,
    ];

    /// The target's name as a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Target::IOS15 => "iOS15",
            Target::IOS16 => "iOS16",
            Target::IOS17 => "iOS17",
            Target::IOS18 => "iOS18",
            Target::IOS26 => "iOS26",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A deployment target that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown deployment target \"{found}\": expected one of iOS15, iOS16, iOS17, iOS18, iOS26 (or the macOS, tvOS or watchOS of that year, such as macOS15)"
)]
#[non_exhaustive]
pub struct UnknownTarget {
    /// What was written.
    pub found: String,
}

impl FromStr for Target {
    type Err = UnknownTarget;

    /// Reads a target by its iOS, macOS, tvOS or watchOS name, in any case.
    ///
    /// ```
    /// use palettizer_pipeline::config::Target;
    /// assert_eq!("macos15".parse(), Ok(Target::IOS18));
    /// assert_eq!("watchOS11".parse(), Ok(Target::IOS18));
    /// assert!("iOS12".parse::<Target>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "ios15" | "macos12" | "tvos15" | "watchos8" => Target::IOS15,
            "ios16" | "macos13" | "tvos16" | "watchos9" => Target::IOS16,
            "ios17" | "macos14" | "tvos17" | "watchos10" => Target::IOS17,
            "ios18" | "macos15" | "tvos18" | "watchos11" => Target::IOS18,
            "ios26" | "macos26" | "tvos26" | "watchos26" => Target::IOS26,
            _ => {
                return Err(UnknownTarget {
                    found: text.to_owned(),
                });
            }
        })
    }
}
