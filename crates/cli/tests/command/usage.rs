//! What is refused with exit code 2 before any file is looked at, and what `--help` says.

use crate::support::Scratch;

#[test]
fn usage_errors_say_what_to_do() {
    let scratch = Scratch::new();
    let table = [
        ("", "Usage: palettizer [OPTIONS] <COMMAND>"),
        ("shrink", "unrecognized subcommand 'shrink'"),
        ("compress", "<IN>"),
        ("compress in.mlpackage --nbits 4", "--output <OUT>"),
        (
            "compress in.mlpackage -o x.mlpackage",
            "how many bits? Give --nbits 1, 2, 3, 4, 6 or 8 (4 is a good start), --target-size 20MB to have them chosen, --mode unique, --config FILE, or bits for some ops only: --op-type linear=4",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --mode uniform",
            "how many bits?",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --op-type linear=skip",
            "how many bits?",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 5",
            "invalid value '5' for '--nbits <N>'\n  [possible values: 1, 2, 3, 4, 6, 8]",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --mode kmean",
            "[possible values: kmeans, uniform, unique]",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --mode custom",
            "--mode is custom, which needs a function, and flags and files hold none; expected kmeans, uniform or unique",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --mode unique --nbits 4",
            "--nbits is 4 with mode unique; expected none: the mode takes as many bits as the values need",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --granularity per_channel",
            "[possible values: per_tensor, per_grouped_channel]",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --granularity per_tensor --group-size 8",
            "--group-size is 8 with granularity per_tensor; expected none, or granularity per_grouped_channel",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --granularity per_tensor --channel-axis 0",
            "--channel-axis is 0 with granularity per_tensor; expected none, or granularity per_grouped_channel",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --group-size x",
            "invalid value 'x' for '--group-size <N>': expected a whole number, 0 or more",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --channel-axis x",
            "invalid value 'x' for '--channel-axis <N>'",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --cluster-dim 0",
            "invalid value '0' for '--cluster-dim <N>': expected a whole number, 1 or more",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --mode uniform --cluster-dim 2",
            "--cluster-dim is 2 with mode uniform; expected 1, or mode kmeans or unique",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --mode unique --lut-dtype int8",
            "--lut-dtype is int8 with mode unique; expected float, or mode kmeans or uniform",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --lut-dtype int4",
            "[possible values: float, int8, uint8]",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --weight-threshold -1",
            "'-1'",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --seed x",
            "invalid value 'x' for '--seed <N>'",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --threads 5000",
            "5000 is not in 0..=1024",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --minimum-deployment-target iOS12",
            "[possible values: iOS16, iOS17, iOS18, iOS26]",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-type linear",
            "invalid value 'linear' for '--op-type <NAME=VALUE>': expected NAME=VALUE, where VALUE is a number of bits, skip, or a list such as nbits=6,mode=uniform,group-size=16",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-type linear=5",
            "invalid value 'linear=5' for '--op-type <NAME=VALUE>': nbits is 5; expected 1, 2, 3, 4, 6 or 8",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-name a=bits=4",
            "unknown key bits; expected one of nbits, mode,",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-type linear=8 --op-type linear=skip",
            "--op-type linear is there twice",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-type const=8",
            "--op-type const: constants have no op type of their own",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --op-type linear=mode=uniform",
            "--op-type linear: nbits is missing; expected 1, 2, 3, 4, 6 or 8 (mode uniform needs it)",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-name a=mode=custom",
            "--op-name a: mode is custom, which needs a function",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --op-type a=granularity=per_tensor,group-size=2",
            "--op-type a: group-size is 2 with granularity per_tensor; expected none, or granularity per_grouped_channel",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --report in.mlpackage/report.json",
            "--report must not lie in IN",
        ),
        (
            "compress in.mlpackage -o in.mlpackage --force --nbits 4 --report ./in.mlpackage",
            "--report must not be IN",
        ),
        (
            "compress in.mlpackage -o x.mlpackage --nbits 4 --report x.mlpackage/r.json",
            "--report must not lie in OUT",
        ),
        ("inspect", "<IN>"),
        (
            "inspect in.mlpackage --weight-threshold x",
            "invalid value 'x' for '--weight-threshold <N>'",
        ),
        ("decompress in.mlpackage", "--output <OUT>"),
        ("demo --force", "--save <DIR>"),
        (
            "completions tcsh",
            "[possible values: bash, elvish, fish, powershell, zsh]",
        ),
    ];
    for (args, message) in table {
        let run = scratch.run(args);
        assert_eq!(run.code, 2, "{args}: {run:?}");
        run.fails(2, message);
    }
    assert_eq!(scratch.names(), ["in.mlpackage"]);
}

#[test]
fn config_excludes_every_flag_of_the_palette() {
    let scratch = Scratch::new();
    let flags = [
        ("--nbits 4", "--nbits <N>"),
        ("--mode unique", "--mode <MODE>"),
        ("--granularity per_tensor", "--granularity <G>"),
        ("--group-size 8", "--group-size <N>"),
        ("--channel-axis -1", "--channel-axis <N>"),
        ("--cluster-dim 2", "--cluster-dim <N>"),
        ("--per-channel-scale", "--per-channel-scale"),
        ("--lut-dtype int8", "--lut-dtype <T>"),
        ("--weight-threshold 0", "--weight-threshold <N>"),
    ];
    for (flag, name) in flags {
        let run = scratch.run(&format!(
            "compress in.mlpackage -o x.mlpackage --config c.yaml {flag}"
        ));
        for part in [name, "cannot be used with", "--config <FILE>"] {
            run.fails(2, part);
        }
    }
}

#[test]
fn every_command_has_an_example() {
    let scratch = Scratch::new();
    for command in ["compress", "inspect", "decompress", "demo", "completions"] {
        for help in ["--help", "-h"] {
            let run = scratch.run(&format!("{command} {help}")).succeeds();
            assert!(run.out.contains("Example"), "{}", run.out);
            assert!(
                run.out.contains(&format!("  palettizer {command} ")),
                "{}",
                run.out
            );
        }
    }
    let run = scratch.run("--help").succeeds();
    assert!(
        run.out
            .starts_with("Make Core ML models and checkpoints smaller"),
        "{}",
        run.out
    );
    for part in ["Examples:", "palettizer demo", "Exit codes: 0 done"] {
        assert!(run.out.contains(part), "{}", run.out);
    }
    let version = scratch.run("--version").succeeds();
    assert_eq!(
        version.out,
        concat!("palettizer ", env!("CARGO_PKG_VERSION"), "\n")
    );
}
