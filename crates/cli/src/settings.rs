//! The options of the library as flags: one for each, with its help, its values and its errors.

use clap::builder::{PossibleValue, PossibleValuesParser, StyledStr};
use clap::{Arg, ArgAction, ArgMatches, Command};
use palettizer::{OpOptions, OptionField, OptionKind, SpecError};

/// The flags that describe a palette.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags(pub(crate) OpOptions);

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(OpOptions::fields().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in OpOptions::fields() {
            let text = match field.kind {
                OptionKind::Flag => matches.get_flag(field.name).then_some("true"),
                _ => matches.get_one::<String>(field.name).map(String::as_str),
            };
            if let Some(text) = text {
                // clap has checked it
                set(&mut self.0, field, text).map_err(|error| {
                    clap::Error::raw(clap::error::ErrorKind::InvalidValue, error)
                })?;
            }
        }
        Ok(())
    }
}

/// Sets an option from what stands on the command line, where names may have dashes.
pub(crate) fn set(
    options: &mut OpOptions,
    field: &OptionField,
    text: &str,
) -> Result<(), SpecError> {
    match field.kind {
        OptionKind::Names(names) => {
            let dashed = |name: &str| name.replace('_', "-").eq_ignore_ascii_case(text);
            let name = names.iter().find(|one| dashed(one.name));
            options.set(field, name.map_or(text, |one| one.name))
        }
        _ => options.set(field, text),
    }
}

/// The name of an option's flag, without dashes before it.
pub(crate) fn flag_name(option: &str) -> String {
    let name = option.strip_prefix("enable_").unwrap_or(option);
    name.replace('_', "-")
}

/// What is wrong, by the name of the flag, with `dashes` before it.
pub(crate) fn explain(error: &SpecError, dashes: &str) -> String {
    let (flag, found) = (flag_name(error.field), &error.found);
    format!("{dashes}{flag} is {found}; expected {}", error.allowed)
}

/// The flag of an option.
fn flag(field: &'static OptionField) -> Arg {
    let arg = Arg::new(field.name)
        .long(flag_name(field.name))
        .help(help(field))
        .help_heading("Palette")
        .value_name(match field.name {
            "mode" => "MODE",
            "granularity" => "G",
            "lut_dtype" => "T",
            _ => "N",
        });
    match field.kind {
        OptionKind::Flag => arg.action(ArgAction::SetTrue),
        OptionKind::Bits => arg.value_parser(PossibleValuesParser::new(field.kind.choices())),
        OptionKind::Names(choices) => {
            // modes are written in capitals elsewhere, and "custom" is refused with advice
            let custom = (field.name == "mode").then(|| PossibleValue::new("custom").hide(true));
            let choices = choices.iter().map(|one| {
                PossibleValue::new(one.name)
                    .help(one.about)
                    .alias(one.name.replace('_', "-"))
            });
            arg.ignore_case(custom.is_some())
                .value_parser(PossibleValuesParser::new(choices.chain(custom)))
        }
        OptionKind::Whole(_) | OptionKind::Integer => arg
            .allow_negative_numbers(field.kind == OptionKind::Integer)
            .value_parser(|text: &str| {
                let done = OpOptions::default().set(field, text);
                done.map(|()| text.to_owned())
                    .map_err(|error| format!("expected {}", error.allowed))
            }),
    }
}

/// What an option is about, with flags for the options that it names.
fn help(field: &OptionField) -> StyledStr {
    let parts = field.about.split('`').enumerate();
    let mut text: String = parts
        .map(|(at, part)| match at % 2 {
            0 => part.to_owned(),
            _ => format!("--{}", flag_name(part)),
        })
        .collect();
    text += match field.name {
        "group_size" => "; implies --granularity per_grouped_channel",
        "channel_axis" => "; implies per_grouped_channel",
        _ => "",
    };
    if let Some(default) = field.default {
        text += &format!(" [default: {default}]");
    }
    text.into()
}
