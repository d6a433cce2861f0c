//! `palettizer compress`: flags to a configuration, the work, the table, the report.

use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use palettizer::budget::{Goal, recipe};
use palettizer::compare::{CompareOptions, Comparison};
use palettizer::layerwise::{LayerwiseAlgorithm, StatisticsOptions, statistics};
use palettizer::runtime::Session;
use palettizer::values::Samples;
use palettizer::{
    MissingSensitivity, Model, Nbits, OpOptions, OpPalettizerConfig, OptimizationConfig, Precision,
    Preset, Report, SaveOptions, Target, config_file, sensitivities,
};
use serde::Serialize;

use crate::budget::BudgetFlags;
use crate::compare::{self, Minimum};
use crate::failure::Failure;
use crate::figures;
use crate::limits::LimitFlags;
use crate::notes;
use crate::output::{Stream, Voice};
use crate::page::Page;
use crate::paths;
use crate::progress::Bar;
use crate::report_file::ReportFile;
use crate::rules::{self, Rule};
use crate::settings::{Flags, explain};
use crate::summary;

/// Palettize the weights of a model or of a checkpoint
#[derive(clap::Args)]
#[command(
    override_usage = "palettizer compress <IN> --output <OUT> <--nbits <N>|--target-size <SIZE>|--config <FILE>> [OPTIONS]",
    after_help = "Examples:
  palettizer compress Model.mlpackage -o Small.mlpackage --nbits 4
  palettizer compress Model.mlpackage -o Small.mlpackage --nbits 4 --group-size 16 \\
      --op-type linear=8 --op-type conv=nbits=6,mode=uniform --op-name conv1=skip
  palettizer compress Model.mlpackage -o Small.mlpackage --config palette.yaml --report report.json
  palettizer compress Model.mlpackage -o Small.mlpackage --target-size 20MB
  palettizer compress Model.mlpackage -o Small.mlpackage --target-bpw 3.5 --sensitivity s.safetensors
  palettizer compress model.safetensors -o small.safetensors --nbits 4 --group-size 1 \\
      --op-name '.*embed_tokens.weight=8' --op-name lm_head.weight=skip
  palettizer compress llama/ -o llama-4bit/ --nbits 4 --group-size 1 --preset llm
  palettizer compress checkpoint/ -o small/ --nbits 3 --sensitivity squared_gradients.safetensors
  palettizer compress checkpoint/ -o small/ --nbits 3 --group-size 1 --statistics statistics.safetensors

A .safetensors checkpoint, or a folder of its shards with their index, has tensors and no ops:
--op-name takes the names of tensors.

NAME may be a pattern: a regular expression that matches the whole name, in flags as in files of
--config. First comes the name itself (which is never read as a pattern), then the first pattern
that fits, then the type, then --preset, then the settings for all. Flags go before the file.

--preset llm is for language models: k-means with 8 bits and one table for each embedding and for
the head, rotary tables and masks as they are, the settings given for all else.

--statistics fits tables and indices to what layers compute: docs/statistics.md says what is in the file.
Weights that cannot be fitted are clustered, and the table says why.

In the table, bits 8/4 are 8 bits for a vector of 4 weights, and (+2) after a name says that
2 more constants share its data."
)]
pub(crate) struct Args {
    // a field for each flag
    /// The model: an .mlpackage, .mlmodel, .safetensors or .aimodel file, or a folder of shards with its index
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Where the smaller model goes: an .mlpackage, or a .safetensors file or a folder like IN
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    palette: Flags,
    /// Other settings for the ops of a type: NAME=BITS, NAME=skip, or NAME=KEY=VALUE,KEY=VALUE…
    #[arg(long, value_name = "NAME=VALUE", value_parser = rules::parse, help_heading = "Which weights")]
    op_type: Vec<Rule>,
    /// Other settings for an op, constant or tensor, by its name, or for all that a pattern fits, such as '.*norm.*'
    #[arg(long, value_name = "NAME=VALUE", value_parser = rules::parse, help_heading = "Which weights")]
    op_name: Vec<Rule>,
    /// What suits a kind of model: llm leaves rotary tables and masks as they are, and gives embeddings and heads 8 bits
    #[arg(long, value_name = "NAME", value_parser = str::parse::<Preset>, help_heading = "Which weights")]
    preset: Option<Preset>,
    /// A configuration in coremltools' layout: .yaml or .json, in place of the palette's flags
    #[arg(long, value_name = "FILE", help_heading = "Which weights", conflicts_with_all = palette_flags())]
    config: Option<PathBuf>,
    /// Palettize what is left of pruned weights, and the integers of quantized ones, too
    #[arg(long, help_heading = "Which weights")]
    joint_compression: bool,
    /// Raise the program to the ops of this system, if it is written for an older one
    #[arg(long, value_name = "T", ignore_case = true, value_parser = target(), help_heading = "Output")]
    minimum_deployment_target: Option<Target>,
    /// How much each element matters: a .safetensors file with a tensor for each weight, by its name
    #[arg(long, value_name = "FILE", help_heading = "Sensitivity")]
    sensitivity: Option<PathBuf>,
    /// What weights get that the file has no tensor for [default: an error]
    #[arg(
        long,
        value_name = "WHAT",
        value_parser = sensitivity_default(),
        requires = "sensitivity",
        help_heading = "Sensitivity"
    )]
    sensitivity_default: Option<MissingSensitivity>,
    /// What layers' inputs look like: a .safetensors file with NAME.second_moments for each weight, and maybe NAME.fisher
    #[arg(long, value_name = "FILE", help_heading = "Statistics")]
    statistics: Option<PathBuf>,
    /// How tables and indices are fitted [default: lnq]
    #[arg(
        long,
        value_name = "NAME",
        value_parser = algorithm(),
        requires = "statistics",
        help_heading = "Statistics"
    )]
    algorithm: Option<LayerwiseAlgorithm>,
    /// Rounds of lnq [default: 2]
    #[arg(
        long,
        value_name = "N",
        requires = "statistics",
        help_heading = "Statistics"
    )]
    rounds: Option<u16>,
    /// What is added to the diagonal of second moments, as a part of its mean [default: 0.1; 0.03 if the file is guided]
    #[arg(
        long,
        value_name = "X",
        value_parser = damping,
        allow_negative_numbers = true,
        requires = "statistics",
        help_heading = "Statistics"
    )]
    damping: Option<f64>,
    /// Run the model before and after on the inputs in FILE, as `palettizer compare` does, and say how far the outputs are apart
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    verify: Option<PathBuf>,
    /// With --verify, fail with exit code 3 if an arg-max agrees for a smaller share of rows, 0 to 1
    #[arg(long, value_name = "P", value_parser = compare::share, help_heading = "Verification")]
    min_agreement: Option<f64>,
    #[command(flatten)]
    budget: BudgetFlags,
    /// Cluster fp32 weights exactly too (fp16 always are); takes about ten times as long
    #[arg(long, help_heading = "Work")]
    exact: bool,
    /// Fail with exit code 3 if a weight has to be skipped that was not to be
    #[arg(long, help_heading = "Work")]
    strict: bool,
    /// Where the random numbers of --cluster-dim start [default: 0]
    #[arg(long, value_name = "N", help_heading = "Work")]
    seed: Option<u64>,
    /// Threads; 0 for one on each core [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024), help_heading = "Work")]
    threads: Option<u16>,
    /// Write what became of each weight: FILE.html is a page to look at, other names are JSON, - is JSON on stdout. An earlier report is replaced
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    report: Option<PathBuf>,
    /// Replace OUT if it exists, and the file of --report whatever it is
    #[arg(long, help_heading = "Output")]
    force: bool,
    #[command(flatten)]
    limits: LimitFlags,
}

impl Args {
    /// What `--verify` has to find.
    fn least(&self) -> Minimum {
        Minimum {
            min_snr: self.budget.min_snr,
            min_agreement: self.min_agreement,
        }
    }

    /// The goal that bits are chosen for.
    fn goal(&self) -> Option<Goal> {
        let named = self.config.is_some() || self.palette.0.spec.names_a_palette();
        self.budget.goal(named)
    }
}

/// The flags that a configuration file stands in for.
fn palette_flags() -> Vec<&'static str> {
    OpOptions::fields().map(|field| field.name).collect()
}

/// What stands in for sensitivities.
fn sensitivity_default() -> impl TypedValueParser<Value = MissingSensitivity> {
    let ones = PossibleValue::new("ones").help("All elements matter alike");
    PossibleValuesParser::new([ones]).map(|_| MissingSensitivity::Ones)
}

/// How a weight is fitted to the inputs of its layer.
fn algorithm() -> impl TypedValueParser<Value = LayerwiseAlgorithm> {
    let names = LayerwiseAlgorithm::CHOICES.iter();
    let names = names.map(|choice| PossibleValue::new(choice.name).help(choice.about));
    PossibleValuesParser::new(names).try_map(|text| text.parse::<LayerwiseAlgorithm>())
}

/// A finite number from zero on.
fn damping(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(damping) if (0.0..f64::INFINITY).contains(&damping) => Ok(damping),
        _ => Err("expected a finite number from 0 on, such as 0.1".to_owned()),
    }
}

/// The targets that a program can be raised to.
pub(crate) fn target() -> impl TypedValueParser<Value = Target> {
    let names = [
        ("iOS16", "macOS13"),
        ("iOS17", "macOS14"),
        ("iOS18", "macOS15"),
        ("iOS26", "macOS26"),
    ];
    let names = names.map(|(name, alias)| PossibleValue::new(name).alias(alias));
    PossibleValuesParser::new(names).try_map(|text| text.parse())
}

pub(crate) fn run(args: Args, voice: Voice) -> Result<(), Failure> {
    places(&args)?;
    let config = configuration(&args)?;
    let model = Model::open_with(&args.input, args.limits.into())?;
    only_for_some(&args, &model)?;
    let samples = samples(&args, &model)?;
    let report_file = ReportFile::prepare(args.report.as_deref(), args.force)?;
    let recipe_file = args.budget.recipe_place(args.force)?;
    let options = SaveOptions::overwriting(args.force);
    let report = on_threads(args.threads, || {
        let progress = Bar::new(voice);
        let limits = args.limits.into();
        let informed = args.budget.informed(&model, config, limits, &progress)?;
        let mut report = model.palettize_to(&informed.config, &args.output, options, &progress)?;
        informed.complete(&mut report);
        Ok::<_, Failure>(report)
    })??;
    if let Some(file) = recipe_file {
        let written = file.commit_bytes(recipe(&report).as_bytes());
        written.map_err(|error| {
            Failure::about(
                "the work was done, but its recipe could not be written",
                error,
            )
        })?;
    }
    let stream = match report_file.is_stdout() {
        true => Stream::Err,
        false => Stream::Out,
    };
    let comparison = verified(&args, &model, samples, voice)?;
    let written = Written {
        report: &report,
        comparison: comparison.as_ref().map(|(found, _)| found),
    };
    report_file.write(&written, || {
        let made = Model::open_with(&args.output, args.limits.into())?;
        Ok(Page::of_compression(
            (&args.input, &model),
            (&args.output, &made),
            &report,
            written.comparison,
        ))
    })?;
    for name in &report.unmatched {
        let what = match model {
            Model::CoreMl(_) | Model::CoreAi(_) => "op, op type or constant with a weight",
            Model::Checkpoint(_) => "tensor",
        };
        let hint = match report.near_names.get(name) {
            Some(near) => format!("did you mean {}?", near.join(" or ")),
            None => "palettizer inspect lists them".to_owned(),
        };
        voice.warn(&format!("no {what} fits \"{name}\"; {hint}"));
    }
    if let Some(reasons) = notes::nothing_done(&report) {
        voice.warn(&reasons);
    }
    let width = stream.width();
    let text = summary::text(&report, width) + &notes::lines(&report, width);
    voice.say(stream, &text)?;
    let Some((found, described)) = comparison else {
        return Ok(());
    };
    let text = compare::text(&found, &described, width);
    voice.say(stream, &format!("\n{text}"))?;
    args.least().reached(&found)
}

/// The report as JSON: what `--verify` found goes with it.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

/// What `--verify` compares on, read before there is anything to lose.
fn samples(args: &Args, before: &Model) -> Result<Option<Samples>, Failure> {
    let (Some(path), Model::CoreMl(before)) = (&args.verify, before) else {
        return Ok(None);
    };
    let session = Session::new(before)?;
    let samples = Samples::open_with(path, session.interface(None)?, args.limits.into())?;
    Ok(Some(samples))
}

/// The comparison that `--verify` asks for, and what it was made on.
fn verified(
    args: &Args,
    before: &Model,
    samples: Option<Samples>,
    voice: Voice,
) -> Result<Option<(Comparison, String)>, Failure> {
    let (Some(samples), Model::CoreMl(before)) = (samples, before) else {
        return Ok(None);
    };
    let Model::CoreMl(after) = Model::open_with(&args.output, args.limits.into())? else {
        return Ok(None);
    };
    let options = CompareOptions {
        arg_max: args.least().agreement(),
        layers: args.report.is_some(),
        ..CompareOptions::default()
    };
    let found = on_threads(args.threads, || {
        let progress = Bar::new(voice);
        palettizer::compare::compare(before, &after, &samples, options, &progress)
    })??;
    let described = format!(
        "{} of {}",
        figures::count(samples.len(), "sample"),
        args.verify.as_deref().unwrap_or(Path::new("-")).display()
    );
    Ok(Some((found, described)))
}

/// Refuses to write to what is read, or twice to one place. (The model itself may be replaced, with --force.)
fn places(args: &Args) -> Result<(), Failure> {
    let inputs = [
        (args.config.as_deref(), "the file of --config"),
        (args.sensitivity.as_deref(), "the file of --sensitivity"),
        (args.statistics.as_deref(), "the file of --statistics"),
        (args.verify.as_deref(), "the file of --verify"),
        (args.budget.curves(), "the file of --curves"),
        (args.budget.inputs(), "the file of --inputs"),
    ];
    paths::apart(&args.output, "OUT", &inputs)?;
    if let Some(path) = args.budget.recipe() {
        paths::apart(path, "--recipe", &inputs)?;
        let models = [
            (Some(args.input.as_path()), "IN"),
            (Some(args.output.as_path()), "OUT"),
            (args.report.as_deref(), "--report"),
        ];
        paths::apart(path, "--recipe", &models)?;
    }
    let Some(report) = args
        .report
        .as_deref()
        .filter(|path| *path != Path::new("-"))
    else {
        return Ok(());
    };
    paths::apart(report, "--report", &inputs)?;
    for (model, name) in [(&args.input, "IN"), (&args.output, "OUT")] {
        paths::apart(report, "--report", &[(Some(model), name)])?;
        // an index stands for its folder
        let index = model.to_string_lossy().ends_with(".index.json");
        let folder = match model.parent().filter(|_| index) {
            Some(folder) if folder == Path::new("") => Path::new("."),
            Some(folder) => folder,
            None => model,
        };
        paths::outside(report, "--report", folder, name)?;
    }
    Ok(())
}

/// Refuses, by their names, the flags that a model of this format has no use for.
fn only_for_some(args: &Args, model: &Model) -> Result<(), Failure> {
    let runs = [
        (args.verify.is_some(), "--verify"),
        (args.budget.inputs().is_some(), "--inputs"),
        (
            args.minimum_deployment_target.is_some(),
            "--minimum-deployment-target",
        ),
    ];
    let ops = [
        (!args.op_type.is_empty(), "--op-type"),
        (args.joint_compression, "--joint-compression"),
    ];
    let first = |flags: &[(bool, &'static str)]| {
        flags
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, flag)| *flag)
    };
    let (flag, why) = match model {
        Model::CoreMl(_) => return Ok(()),
        Model::Checkpoint(_) => (
            first(&ops).or(first(&runs)),
            "a checkpoint has tensors and no ops",
        ),
        Model::CoreAi(_) => (
            first(&runs),
            "a Core AI program is not run here, and is for one system",
        ),
    };
    match flag {
        None => Ok(()),
        Some(flag) => Err(Failure::Usage(format!(
            "{flag} is for Core ML models; {why}{}",
            match flag {
                "--op-type" =>
                    ": use --op-name with the names of tensors, or with patterns of them",
                _ => "",
            }
        ))),
    }
}

/// What the flags come to: the rules of the command line first, in their order, then what a file says.
fn configuration(args: &Args) -> Result<OptimizationConfig, Failure> {
    let mut flags = args.palette.0.clone();
    args.budget.alone(args.goal(), &flags)?;
    flags.spec.precision = args.exact.then_some(Precision::Exact);
    flags.spec.seed = args.seed;
    let (file, base) = match &args.config {
        // beside a file, no more of the flags is there than what holds for all weights
        Some(path) => {
            let file = config_file::from_path(path, &flags);
            let file = file.map_err(|error| Failure::Work(error.to_string()))?;
            let global = file.global().map(OpOptions::from);
            (file, global.unwrap_or(flags))
        }
        None => {
            let config = OptimizationConfig::new().with_global(global(args, &flags)?);
            (config, flags)
        }
    };
    let mut config = OptimizationConfig::new()
        .with_global(file.global().cloned())
        .with_preset(args.preset.or(file.preset()));
    for (op_type, settings) in rules("--op-type", &args.op_type, &base)? {
        if op_type == "const" {
            return Err(Failure::Usage(
                "--op-type const: constants have no op type of their own; \
                 name the ops that use them, or a constant with --op-name"
                    .to_owned(),
            ));
        }
        config = config.with_op_type(op_type, settings);
    }
    for (name, settings) in rules("--op-name", &args.op_name, &base)? {
        config = config.with_op_name(name, settings);
    }
    for (op_type, settings) in file.op_types().iter() {
        if config.op_types().get(op_type).is_none() {
            config = config.with_op_type(op_type, settings.cloned());
        }
    }
    for (name, settings) in file.op_names().iter() {
        if config.op_names().get(name).is_none() {
            config = config.with_op_name(name, settings.cloned());
        }
    }
    if let Some(path) = &args.sensitivity {
        let missing = args
            .sensitivity_default
            .unwrap_or(MissingSensitivity::Error);
        config = config.with_sensitivity(sensitivities(path, missing)?);
    }
    if let Some(path) = &args.statistics {
        if args.sensitivity.is_some() {
            return Err(Failure::Usage(
                "--statistics and --sensitivity cannot be used together: the file of --statistics may have \
                 NAME.fisher beside NAME.second_moments, which weighs as a sensitivity does"
                    .to_owned(),
            ));
        }
        let options = StatisticsOptions {
            algorithm: args.algorithm.unwrap_or_default(),
            rounds: args.rounds.map(usize::from),
            damping: args.damping,
        };
        config = config.with_statistics(statistics(path, options)?);
    }
    Ok(config
        .with_budget(args.budget.budget(args.goal(), file.budget())?)
        .with_joint_compression(args.joint_compression)
        .with_strict(args.strict)
        .with_minimum_deployment_target(args.minimum_deployment_target))
}

/// The settings of each rule of a flag, over those that all start from.
fn rules<'a>(
    flag: &str,
    rules: &'a [Rule],
    base: &OpOptions,
) -> Result<Vec<(&'a str, Option<OpPalettizerConfig>)>, Failure> {
    let one = |(at, Rule { name, settings }): (usize, &'a Rule)| {
        if rules[at + 1..].iter().any(|other| other.name == *name) {
            return Err(Failure::Usage(format!("{flag} {name} is there twice")));
        }
        let built = settings
            .as_ref()
            .map(|settings| settings.clone().over(base).build());
        let built = built.transpose();
        built
            .map(|built| (name.as_str(), built))
            .map_err(|error| Failure::Usage(format!("{flag} {name}: {}", explain(&error, ""))))
    };
    rules.iter().enumerate().map(one).collect()
}

/// What the flags say of all weights. Without a number of bits, only those that a rule names are palettized.
fn global(args: &Args, flags: &OpOptions) -> Result<Option<OpPalettizerConfig>, Failure> {
    let mut flags = flags.clone();
    if args.goal().is_some() {
        // bits are chosen, and so is whether there are groups
        flags.spec.nbits = flags.spec.nbits.or(Some(Nbits::B4));
    }
    if flags.spec.names_a_palette() {
        let config = flags.build().map(Some);
        return config.map_err(|error| Failure::Usage(explain(&error, "--")));
    }
    let mut rules = args.op_type.iter().chain(&args.op_name);
    match rules.any(|rule| rule.settings.is_some()) {
        true => Ok(None),
        false => Err(Failure::Usage(
            "how many bits? Give --nbits 1, 2, 3, 4, 6 or 8 (4 is a good start), --target-size 20MB to have them chosen, \
             --mode unique, --config FILE, or bits for some ops only: --op-type linear=4"
                .to_owned(),
        )),
    }
}

/// Does the work on a pool of so many threads, or of one for each core.
pub(crate) fn on_threads<R: Send>(
    threads: Option<u16>,
    work: impl FnOnce() -> R + Send,
) -> Result<R, Failure> {
    match threads {
        None | Some(0) => Ok(work()),
        Some(threads) => rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build()
            .map(|pool| pool.install(work))
            .map_err(|error| Failure::about("--threads", error)),
    }
}
