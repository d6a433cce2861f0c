//! Cases as tables: what options come to, and what is refused with which words.

use super::*;
use crate::CustomLut;

fn field(name: &str) -> &'static OptionField {
    let mut fields = SpecOptions::FIELDS.iter();
    fields.find(|field| field.name == name).unwrap()
}

/// Options from a list such as `nbits=4 mode=uniform`.
fn options(list: &str) -> Result<SpecOptions, SpecError> {
    let mut options = SpecOptions::default();
    for item in list.split_whitespace() {
        let (name, value) = item.split_once('=').unwrap();
        options.set(field(name), value)?;
    }
    Ok(options)
}

#[test]
fn every_field_can_be_set_and_has_its_default() {
    let unsaid = options("nbits=4").unwrap();
    for field in SpecOptions::FIELDS {
        for choice in field.kind.choices() {
            SpecOptions::default().set(field, &choice).unwrap();
        }
        let error = SpecOptions::default().set(field, "?").unwrap_err();
        assert_eq!((error.field, &*error.found), (field.name, "?"));
        assert_eq!(error.allowed, field.kind.expected());
        let groups = ["group_size", "channel_axis"].contains(&field.name);
        let Some(default) = field.default.filter(|_| !groups) else {
            continue;
        };
        let mut said = unsaid.clone();
        said.set(field, default).unwrap();
        assert_eq!(said.build(), unsaid.build(), "{}", field.name);
    }
    let default = field("group_size").default;
    assert_eq!(default, Some(&*DEFAULT_GROUP_SIZE.to_string()));
}

#[test]
fn options_are_those_of_their_spec() {
    for list in [
        "nbits=3",
        "mode=unique cluster_dim=2",
        "nbits=8 mode=uniform lut_dtype=int8 enable_per_channel_scale=true",
        "nbits=4 group_size=0",
        "nbits=4 channel_axis=-1",
    ] {
        let spec = options(list).unwrap().build().unwrap();
        assert_eq!(SpecOptions::from(&spec).build(), Ok(spec), "{list}");
    }
    let custom = SpecOptions {
        mode: Some(ModeName::Custom),
        lut_function: Some(LutFunction::new(|_, _| Ok(CustomLut::default()))),
        ..SpecOptions::default()
    };
    let spec = custom.build().unwrap();
    assert_eq!(SpecOptions::from(&spec).build(), Ok(spec));
}

#[test]
fn options_that_contradict_each_other() {
    let bits = "1, 2, 3, 4, 6 or 8";
    let table = [
        ("", format!("nbits is missing; expected {bits} (mode kmeans needs it)")),
        ("mode=uniform", format!("nbits is missing; expected {bits} (mode uniform needs it)")),
        ("nbits=5", format!("nbits is 5; expected {bits}")),
        ("cluster_dim=0", "cluster_dim is 0; expected a whole number, 1 or more".to_owned()),
        (
            "nbits=4 mode=unique",
            "nbits is 4 with mode unique; expected none: the mode takes as many bits as the values need".to_owned(),
        ),
        (
            "mode=custom",
            "mode is custom, which needs a function, and flags and files hold none; expected kmeans, uniform or unique \
             (Mode::Custom of the Rust API and lut_function of the Python API take one)"
                .to_owned(),
        ),
        (
            "nbits=4 granularity=per_tensor group_size=8",
            "group_size is 8 with granularity per_tensor; expected none, or granularity per_grouped_channel".to_owned(),
        ),
        (
            "nbits=4 granularity=per_tensor channel_axis=0",
            "channel_axis is 0 with granularity per_tensor; expected none, or granularity per_grouped_channel".to_owned(),
        ),
    ];
    for (list, expected) in table {
        let error = options(list).and_then(|options| options.build());
        assert_eq!(error.unwrap_err().to_string(), expected, "{list}");
    }
    let function = SpecOptions {
        lut_function: Some(LutFunction::new(|_, _| Ok(CustomLut::default()))),
        ..options("nbits=4").unwrap()
    };
    assert_eq!(function.build().unwrap_err().field, "lut_function");
}

#[test]
fn unused_groups_are_ignored_where_that_is_the_rule() {
    for (list, expected) in [
        ("nbits=4 group_size=8", "nbits=4"),
        ("nbits=4 granularity=per_tensor channel_axis=1", "nbits=4"),
        (
            "nbits=4 granularity=per_grouped_channel channel_axis=1",
            "nbits=4 group_size=32 channel_axis=1",
        ),
    ] {
        let read = options(list).unwrap().ignoring_unused_groups().build();
        assert_eq!(read, options(expected).unwrap().build(), "{list}");
    }
}
