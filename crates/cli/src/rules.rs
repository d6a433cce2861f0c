//! `--op-type NAME=VALUE` and `--op-name NAME=VALUE`: other settings for some ops.

use crate::settings::{GranularityName, LutDtypeName, ModeName, Settings, at_least_one};

/// What is said about the ops of a type, or of a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// `None` leaves their weights alone.
    pub(crate) settings: Option<Settings>,
}

const KEYS: &str = "nbits, mode, granularity, group-size, channel-axis, cluster-dim, per-channel-scale, \
                    lut-dtype, weight-threshold";

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

fn settings(list: &str) -> Result<Settings, String> {
    let mut settings = Settings::default();
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
                    "\"{item}\" is no setting: expected a number of bits, skip, or KEY=VALUE with a key of {KEYS}"
                ));
            }
        };
        set(&mut settings, &key, value)?;
    }
    Ok(settings)
}

fn set(settings: &mut Settings, key: &str, value: &str) -> Result<(), String> {
    match key {
        "nbits" => once(
            &mut settings.nbits,
            key,
            value
                .parse()
                .map_err(|_| format!("nbits is {value}; expected 1, 2, 3, 4, 6 or 8")),
        ),
        "mode" => once(&mut settings.mode, key, named::<ModeName>(key, value)),
        "granularity" => once(
            &mut settings.granularity,
            key,
            named::<GranularityName>(key, value),
        ),
        "group-size" => once(
            &mut settings.group_size,
            key,
            value
                .parse()
                .map_err(|_| format!("group-size is {value}; expected a whole number, 0 or more")),
        ),
        "channel-axis" => once(
            &mut settings.channel_axis,
            key,
            value
                .parse()
                .map_err(|_| format!("channel-axis is {value}; expected a whole number")),
        ),
        "cluster-dim" => once(&mut settings.cluster_dim, key, number(key, value)),
        "per-channel-scale" => once(
            &mut settings.per_channel_scale,
            key,
            value
                .parse()
                .map_err(|_| format!("per-channel-scale is {value}; expected true or false")),
        ),
        "lut-dtype" => once(
            &mut settings.lut_dtype,
            key,
            named::<LutDtypeName>(key, value).map(Into::into),
        ),
        "weight-threshold" => once(
            &mut settings.weight_threshold,
            key,
            value.parse().map_err(|_| {
                format!("weight-threshold is {value}; expected a whole number, 0 or more")
            }),
        ),
        _ => Err(format!("unknown key {key}; expected one of {KEYS}")),
    }
}

fn once<T>(place: &mut Option<T>, key: &str, value: Result<T, String>) -> Result<(), String> {
    match place.replace(value?) {
        Some(_) => Err(format!("{key} is there twice")),
        None => Ok(()),
    }
}

fn number(key: &str, value: &str) -> Result<usize, String> {
    at_least_one(value).map_err(|expected| format!("{key} is {value}; {expected}"))
}

fn named<T: clap::ValueEnum>(key: &str, value: &str) -> Result<T, String> {
    T::from_str(value, true).map_err(|_| {
        let names = T::value_variants()
            .iter()
            .filter_map(|variant| variant.to_possible_value())
            .filter(|name| !name.is_hide_set())
            .map(|name| name.get_name().to_owned());
        let names: Vec<String> = names.collect();
        format!("{key} is {value}; expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests;
