//! What goes wrong outside the command line: exit code 1, one line that says why, and nothing left behind.

use std::process::Stdio;

use crate::support::{Run, Scratch, binary};

#[test]
fn bad_files_are_named() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("text.mlmodel"), "not a model").unwrap();
    std::fs::create_dir(scratch.path("empty.mlpackage")).unwrap();
    let before = scratch.names();
    for input in ["missing.mlpackage", "text.mlmodel", "empty.mlpackage"] {
        for command in [
            format!("compress {input} -o out.mlpackage --nbits 4 --report r.json"),
            format!("inspect {input}"),
            format!("decompress {input} -o out.mlpackage"),
        ] {
            let run = scratch.run(&command);
            run.fails(1, &format!("error: {input}"));
            assert_eq!(run.out, "", "{command}");
        }
    }
    assert_eq!(scratch.names(), before);
}

#[test]
fn files_of_other_tools_are_recognised() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("hf")).unwrap();
    let table: [(&str, &[u8], &str); 7] = [
        ("model.pt", b"PK\x03\x04", "this is a PyTorch file"),
        (
            "model.onnx",
            b"\x08\x07\x12\x07pytorch",
            "this is an ONNX model",
        ),
        ("model.gguf", b"GGUF\x03", "this is a GGUF file"),
        (
            "lfs.safetensors",
            b"version https://git-lfs.github.com/spec/v1\n",
            "this is a Git LFS pointer",
        ),
        ("model.mlmodelc", b"", "this is a compiled model"),
        ("renamed.mlmodel", b"\x89HDF\r\n", "this is a Keras file"),
        (
            "hf/pytorch_model.bin",
            b"\x80\x02",
            "this is a PyTorch file",
        ),
    ];
    for (name, bytes, message) in table {
        std::fs::write(scratch.path(name), bytes).unwrap();
        let run = scratch.run(&format!("inspect {name}"));
        run.fails(1, &format!("error: {name}: {message}"));
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    }
    scratch
        .run("inspect hf")
        .fails(1, "error: hf: this checkpoint is stored as PyTorch files");
    scratch
        .run("inspect missing.pt")
        .fails(1, "missing.pt: No such file");
}

#[test]
fn an_output_that_cannot_be_is_found_before_the_work() {
    let scratch = Scratch::new();
    let table = [
        ("-o out.bin --nbits 4", "out.bin"),
        ("-o no/such/out.mlpackage --nbits 4", "no/such"),
        (
            "-o out.mlpackage --nbits 4 --report no/such/r.json",
            "error: no/such/r.json: cannot write here: the folder no/such does not exist",
        ),
        (
            "-o out.mlpackage --nbits 4 --report .",
            "error: .: cannot write here: this is a folder, where a file should go",
        ),
    ];
    for (flags, message) in table {
        scratch
            .run(&format!("compress in.mlpackage {flags}"))
            .fails(1, message);
        assert_eq!(scratch.names(), ["in.mlpackage"], "{flags}");
    }
}

#[test]
fn a_truncated_weight_file_is_refused() {
    let scratch = Scratch::new();
    let weights = scratch.path("in.mlpackage/Data/com.apple.CoreML/weights/weight.bin");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let run = scratch.run("compress in.mlpackage -o out.mlpackage --nbits 4");
    run.fails(1, "weight.bin");
    assert_eq!(scratch.names(), ["in.mlpackage"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::new();
    for args in [
        "inspect in.mlpackage --weight-threshold 0 --json",
        "demo",
        "completions zsh",
        "compress in.mlpackage -o out.mlpackage --nbits 4 --report -",
    ] {
        let mut child = binary()
            .args(args.split(' '))
            .current_dir(scratch.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let run = Run::from(child.wait_with_output().unwrap());
        assert_eq!(run.code, 0, "{args}: {run:?}");
        assert!(
            !run.err.contains("panicked") && !run.err.contains("error"),
            "{}",
            run.err
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_an_error() {
    let scratch = Scratch::new();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = binary()
        .args(["inspect", "in.mlpackage"])
        .current_dir(scratch.path(""))
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn();
    let run = Run::from(child.unwrap().wait_with_output().unwrap());
    run.fails(1, "error: stdout: No space left on device");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing_behind() {
    use std::time::{Duration, Instant};

    let scratch = Scratch::new();
    let args = "compress in.mlpackage -o out.mlpackage --nbits 8 --cluster-dim 2 --threads 1 --report r.json";
    for _ in 0..20 {
        let mut child = binary()
            .args(args.split(' '))
            .current_dir(scratch.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // the output and the report are both under way
        let start = Instant::now();
        let under_way = || {
            scratch
                .names()
                .iter()
                .filter(|name| name.starts_with('.'))
                .count()
                == 2
        };
        while !under_way() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.is_ok());
        if child.wait().unwrap().success() {
            // too late: it was done already
            std::fs::remove_dir_all(scratch.path("out.mlpackage")).unwrap();
            std::fs::remove_file(scratch.path("r.json")).unwrap();
            continue;
        }
        let run = Run::from(child.wait_with_output().unwrap());
        run.fails(1, "interrupted; nothing unfinished was left behind");
        assert_eq!(scratch.names(), ["in.mlpackage"]);
        return;
    }
    panic!("the work was always done before the signal came");
}
