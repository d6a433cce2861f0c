//! What a budget came to, as a configuration.

use crate::Report;

/// The choice of a budget as a configuration in YAML: each weight by its name, with its form. It gives the same model again, and
/// coremltools' `OptimizationConfig` reads it too (but for types of tables, which it does not know).
///
/// ```
/// use palettizer::budget::{Budget, Goal, recipe};
/// use palettizer::{OpOptions, OptimizationConfig, config_file};
/// # fn demo() -> Result<(), palettizer::Error> {
/// let model = palettizer::coreml::Model::open("Model.mlpackage")?;
/// let config = OptimizationConfig::new().with_budget(Budget::new(Goal::Ratio(6.0)));
/// let (small, report) = model.palettize(&config, &())?;
/// let again = config_file::from_yaml_str(&recipe(&report), &OpOptions::default()).expect("a configuration");
/// assert_eq!(model.palettize(&again, &())?.1.bytes_after, report.bytes_after);
/// # Ok(()) }
/// ```
pub fn recipe(report: &Report) -> String {
    let mut text = "config_type: OpPalettizerConfig\nop_name_configs:\n".to_owned();
    let mut any = false;
    for row in &report.weights {
        let Some(budget) = &row.budget else {
            continue;
        };
        let settings = settings(&budget.form.form);
        for name in std::iter::once(&row.name).chain(&row.shared_with) {
            // text of JSON is text of YAML
            let name = serde_json::Value::from(name.as_str());
            text += &format!("  {name}: {{{settings}, weight_threshold: 0}}\n");
            any = true;
        }
    }
    if !any {
        text = text.replace("configs:\n", "configs: {}\n");
    }
    text
}

/// The settings of a form by the keys of configurations.
fn settings(form: &str) -> String {
    let mut settings = Vec::new();
    for part in form.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key {
            "group_size" => settings.push("granularity: per_grouped_channel".to_owned()),
            // they are no keys of files: flags, or what a caller sets, say them
            "exact" | "seed" | "fold_scale" | "half_scales" => continue,
            _ => {}
        }
        settings.push(format!("{key}: {value}"));
    }
    settings.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_become_settings() {
        let cases = [
            ("mode=kmeans,nbits=4", "mode: kmeans, nbits: 4"),
            (
                "mode=uniform,nbits=2,group_size=8,channel_axis=1,cluster_dim=2,seed=3",
                "mode: uniform, nbits: 2, granularity: per_grouped_channel, group_size: 8, channel_axis: 1, cluster_dim: 2",
            ),
        ];
        for (form, expected) in cases {
            assert_eq!(settings(form), expected);
        }
    }
}
