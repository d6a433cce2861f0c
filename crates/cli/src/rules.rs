//! `--op-type NAME=VALUE` and `--op-name NAME=VALUE`: other settings for some ops.

use palettizer::OpOptions;

use crate::settings::{explain, flag_name, set};

/// What is said about the ops of a type, or of a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// `None` leaves their weights alone.
    pub(crate) settings: Option<OpOptions>,
}

/// Reads `NAME=VALUE`; VALUE is `skip`, a number of bits, or a list such as `nbits=6,mode=uniform`.
pub(crate) fn parse(text: &str) -> Result<Rule, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => (name, value),
        _ => {
            return Err(
                "expected NAME=VALUE, where VALUE is a number of bits, skip, or a list \
                 such as nbits=6,mode=uniform,group-size=16"
                    .to_owned(),
            );
        }
    };
    let settings = match value {
        "skip" => None,
        list => Some(settings(list)?),
    };
    Ok(Rule {
        name: name.to_owned(),
        settings,
    })
}

fn settings(list: &str) -> Result<OpOptions, String> {
    let names: Vec<String> = OpOptions::fields().map(|one| flag_name(one.name)).collect();
    let names = names.join(", ");
    let mut settings = OpOptions::default();
    let mut seen = Vec::new();
    for item in list.split(',').map(str::trim) {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key.trim().replace('_', "-"), value.trim()),
            None if item.starts_with(|first: char| first.is_ascii_digit()) => {
                ("nbits".to_owned(), item)
            }
            None if item == "per-channel-scale" || item == "per_channel_scale" => {
                ("per-channel-scale".to_owned(), "true")
            }
            None => {
                return Err(format!(
                    "\"{item}\" is no setting: expected a number of bits, skip, or KEY=VALUE with a key of {names}"
                ));
            }
        };
        let field = OpOptions::fields()
            .find(|field| flag_name(field.name) == key)
            .ok_or_else(|| format!("unknown key {key}; expected one of {names}"))?;
        set(&mut settings, field, value).map_err(|error| explain(&error, ""))?;
        if seen.contains(&key) {
            return Err(format!("{key} is there twice"));
        }
        seen.push(key);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;
