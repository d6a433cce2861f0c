//! Files that are read: opened as regular files only, mapped, given back as they are used, and watched for change.

mod foreign;
mod guard;
mod input;
mod map;

pub use foreign::{by_content, by_name, folder, foreign};
pub use guard::guard_mappings;
pub use input::{Input, Stamp, kind};
pub use map::MappedFile;
