//! Enums that users write by name: the names, what they mean and how they are read, declared once.

/// A name that users choose.
///
/// ```
/// let unique = palettizer_palette::ModeName::CHOICES[2];
/// assert_eq!((unique.name, unique.about.len() > 10), ("unique", true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// What users write.
    pub name: &'static str,
    /// What it means, in a line.
    pub about: &'static str,
}

/// Declares an enum and the name of each of its values; what documents a value tells users what it means too. The first
/// value is the default. Those that are `unlisted` are read, and shown to nobody who has to choose.
macro_rules! names {
    (
        $(#[$meta:meta])*
        $type:ident as $field:literal {
            $($(#[doc = $about:literal])+ $value:ident = $name:literal,)+
        }
        $(unlisted { $($(#[doc = $more:literal])+ $unlisted:ident = $unlisted_name:literal,)+ })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[doc = $about])+ $value,)+
            $($($(#[doc = $more])+ $unlisted,)+)?
        }

        impl $type {
            /// The names that users choose from; the first is the default.
            pub const CHOICES: &'static [$crate::Choice] = &[$($crate::Choice {
                name: $name,
                about: concat!($($about),+).trim_ascii(),
            }),+];

            /// The name users write.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$value => $name,)+
                    $($($type::$unlisted => $unlisted_name,)+)?
                }
            }
        }

        impl Default for $type {
            fn default() -> Self {
                [$($type::$value),+][0]
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::SpecError;

            /// Reads a name, in any case.
            fn from_str(text: &str) -> Result<Self, $crate::SpecError> {
                [$($type::$value,)+ $($($type::$unlisted,)+)?]
                    .into_iter()
                    .find(|value| value.name().eq_ignore_ascii_case(text))
                    .ok_or_else(|| {
                        let names = $type::CHOICES.iter().map(|one| one.name);
                        $crate::SpecError::new($field, text, $crate::spec::alternatives(names))
                    })
            }
        }
    };
}

pub(crate) use names;

/// `a, b or c`.
pub(crate) fn alternatives(all: impl IntoIterator<Item = impl ToString>) -> String {
    let all: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    match all.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => all.concat(),
    }
}
