//! A report as one page: no network, works from disk, light and dark, by keyboard and by screen reader.
//!
//! The figures are JSON within the page; a script draws tables and pictures of them.

mod shapes;

use palettizer::budget::Recommendation;
use palettizer::compare::Comparison;
use palettizer::{Model, Report};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::demo::Width;
use crate::failure::Failure;
pub(crate) use shapes::{Shape, shapes};

/// Whether a file of this name is to be a page.
pub(crate) fn is_named(path: &Path) -> bool {
    let extension = path
        .extension()
        .map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| extension == "html" || extension == "htm")
}

/// Whether a page of ours lies there, which another one may replace.
pub(crate) fn is_at(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MARK_WITHIN).read_to_end(&mut begin));
    read.is_ok() && begin.windows(MARK.len()).any(|part| part == MARK)
}

/// What begins every page of ours, within so many bytes.
const MARK: &[u8] = b"<title>Palettizer</title>";
const MARK_WITHIN: u64 = 1024;

/// What a page shows.
#[derive(Default, Serialize)]
pub(crate) struct Page<'a> {
    /// Its heading.
    pub(crate) title: String,
    /// What is said under it.
    pub(crate) subtitle: String,
    /// A model at several numbers of bits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) widths: Vec<Width>,
    /// What to type for one of the sizes, but for the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<&'a str>,
    /// The model at several sizes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) recommendations: &'a [Recommendation],
    /// What became of each weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) report: Option<&'a Report>,
    /// The distribution of each palettized weight, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) shapes: BTreeMap<String, Shape>,
    /// Outputs, and values between, before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<&'a Comparison>,
}

impl<'a> Page<'a> {
    /// The page of a compression.
    pub(crate) fn of_compression(
        (input, before): (&Path, &Model),
        (output, after): (&Path, &Model),
        report: &'a Report,
        comparison: Option<&'a Comparison>,
    ) -> Self {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        Page {
            title: name(output),
            subtitle: format!("made from {}", name(input)),
            report: Some(report),
            shapes: shapes(report, before, after),
            comparison,
            ..Page::default()
        }
    }

    /// The page of a comparison.
    pub(crate) fn of_comparison(title: String, subtitle: String, found: &'a Comparison) -> Self {
        Page {
            title,
            subtitle,
            comparison: Some(found),
            ..Page::default()
        }
    }

    /// The page as HTML.
    pub(crate) fn html(&self) -> Result<String, Failure> {
        let json = serde_json::to_string(self);
        let json = json.map_err(|error| Failure::about("the page", error))?;
        // names come from files: none of them may end the script that holds them
        let json = json.replace('<', "\\u003c");
        let (template, script) = (include_str!("page.html"), include_str!("page.js"));
        Ok(template
            .replacen("@SCRIPT@", script, 1)
            .replacen("@DATA@", &json, 1))
    }
}
