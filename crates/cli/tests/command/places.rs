//! Where the output and the report go: what they may replace, what stays, and what is never lost.

use crate::support::{Scratch, binary};

const RUN: &str = "compress in.mlpackage -o out.mlpackage --nbits 2";

fn text(scratch: &Scratch, name: &str) -> String {
    std::fs::read_to_string(scratch.path(name)).unwrap()
}

#[test]
fn a_report_replaces_a_report_and_else_only_by_force() {
    let scratch = Scratch::new();
    scratch.run(&format!("{RUN} --report r.json")).succeeds();
    let first = text(&scratch, "r.json");
    std::fs::remove_dir_all(scratch.path("out.mlpackage")).unwrap();
    scratch
        .run(&format!("{RUN} --group-size 1 --report r.json"))
        .succeeds();
    assert_ne!(text(&scratch, "r.json"), first);

    std::fs::remove_dir_all(scratch.path("out.mlpackage")).unwrap();
    let names = scratch.names();
    for mine in [
        "",
        "notes",
        "{}",
        r#"{"version": 1, "weights": []}"#,
        r#"{"version": "1", "bytes_before": 1}"#,
        r#"[{"version": 1, "bytes_before": 1}]"#,
    ] {
        std::fs::write(scratch.path("r.json"), mine).unwrap();
        scratch
            .run(&format!("{RUN} --report r.json"))
            .fails(1, "error: r.json: exists already: use --force");
        assert_eq!(text(&scratch, "r.json"), mine);
        assert_eq!(scratch.names(), names);
    }
    scratch
        .run(&format!("{RUN} --report r.json --force"))
        .succeeds();
    assert_eq!(scratch.json("r.json")["version"], 1);
}

#[test]
fn a_report_is_nothing_that_the_run_reads_or_writes() {
    let scratch = Scratch::new();
    let config = "config_type: OpPalettizerConfig\nglobal_config: {nbits: 2}\n";
    std::fs::write(scratch.path("c.yaml"), config).unwrap();
    std::fs::hard_link(scratch.path("c.yaml"), scratch.path("hard.json")).unwrap();
    std::fs::create_dir(scratch.path("sub")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../c.yaml", scratch.path("sub/soft.json")).unwrap();
    let before = scratch.names();
    let run = "compress in.mlpackage -o out.mlpackage --force --config c.yaml --report";
    let mut same = vec!["c.yaml", "./sub/../c.yaml", "hard.json"];
    if cfg!(unix) {
        same.push("sub/soft.json");
    }
    for name in same {
        let refused = scratch.run(&format!("{run} {name}"));
        refused.fails(2, "--report must not be the file of --config");
        assert_eq!(text(&scratch, "c.yaml"), config, "{name}");
    }
    for (name, message) in [
        ("in.mlpackage", "--report must not be IN"),
        ("in.mlpackage/r.json", "--report must not lie in IN"),
        (
            "sub/../in.mlpackage/Data/r.json",
            "--report must not lie in IN",
        ),
        ("out.mlpackage", "--report must not be OUT"),
        ("./out.mlpackage", "--report must not be OUT"),
        ("out.mlpackage/r.json", "--report must not lie in OUT"),
    ] {
        scratch.run(&format!("{run} {name}")).fails(2, message);
    }
    assert_eq!(scratch.names(), before);
}

#[test]
fn the_output_is_no_other_input() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("s.mlpackage"), "squared gradients").unwrap();
    for flag in ["--sensitivity", "--config"] {
        let run = format!("compress in.mlpackage -o s.mlpackage --force {flag} s.mlpackage");
        let run = scratch.run(&run);
        run.fails(2, &format!("OUT must not be the file of {flag}"));
        assert_eq!(text(&scratch, "s.mlpackage"), "squared gradients");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_what_is_no_file_stays() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("sub")).unwrap();
    std::fs::write(scratch.path("sub/real.json"), "mine").unwrap();
    symlink("sub/real.json", scratch.path("link.json")).unwrap();
    symlink("nowhere.json", scratch.path("dangling.json")).unwrap();
    symlink("round.json", scratch.path("round.json")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(scratch.path("pipe"))
        .status();
    assert!(fifo.unwrap().success());
    let before = scratch.names();

    for (name, message) in [
        (
            "dangling.json",
            "error: dangling.json: cannot write here: this is a link",
        ),
        (
            "round.json",
            "error: round.json: cannot write here: this is a link",
        ),
        (
            "pipe",
            "error: pipe: cannot write here: this is a pipe (FIFO); only files are replaced",
        ),
        (
            "socket",
            "error: socket: cannot write here: this is a socket; only files are replaced",
        ),
        (
            "/dev/null",
            "error: /dev/null: cannot write here: this is a device; only files are replaced",
        ),
        (
            "sub",
            "error: sub: cannot write here: this is a folder, where a file should go",
        ),
    ] {
        for force in ["", "--force"] {
            scratch
                .run(&format!("{RUN} {force} --report {name}"))
                .fails(1, message);
            assert_eq!(scratch.names(), before, "{name}");
        }
    }
    let kind = |name| {
        std::fs::symlink_metadata(scratch.path(name))
            .unwrap()
            .file_type()
    };
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
    assert!(
        std::fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
    drop(socket);

    scratch
        .run(&format!("{RUN} --report link.json"))
        .fails(1, "link.json: exists already");
    assert_eq!(text(&scratch, "sub/real.json"), "mine");
    scratch
        .run(&format!("{RUN} --report link.json --force"))
        .succeeds();
    assert!(kind("link.json").is_symlink() && !kind("sub/real.json").is_symlink());
    assert_eq!(scratch.json("sub/real.json")["version"], 1);
    assert_eq!(std::fs::read_dir(scratch.path("sub")).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn what_is_replaced_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let scratch = Scratch::new();
    let run = format!("{RUN} --report r.json --force");
    scratch.run(&run).succeeds();
    let mode = |name: &str| {
        std::fs::metadata(scratch.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    let set = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scratch.path(name), mode).unwrap();
    };
    set("r.json", 0o640);
    set("out.mlpackage", 0o750);
    scratch.run(&run).succeeds();
    assert_eq!((mode("r.json"), mode("out.mlpackage")), (0o640, 0o750));
    set("r.json", 0o444);
    scratch.run(&run).succeeds();
    assert_eq!(mode("r.json"), 0o444);
}

#[test]
fn any_name_that_the_file_system_takes_is_a_name_for_an_output() {
    let scratch = Scratch::new();
    let name = |end: &str| format!("{}{end}", "n".repeat(255 - end.len()));
    let (out, report) = (name(".mlpackage"), name(".json"));
    let run = format!("compress in.mlpackage -o {out} --nbits 2 --force --report {report}");
    scratch.run(&run).succeeds();
    scratch.run(&run).succeeds();
    scratch
        .run(&format!("decompress {out} -o {out} --force"))
        .succeeds();
    let mut names = ["in.mlpackage", &out, &report];
    names.sort_unstable();
    assert_eq!(scratch.names(), names);
    let longer = format!("compress in.mlpackage -o n{out} --nbits 2");
    scratch
        .run(&longer)
        .fails(1, &format!("error: n{out}: cannot write here: "));
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let scratch = Scratch::new();
    let name = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let (out, report) = (name(b"\xff\xfe.mlpackage"), name(b"r\xff.json"));
    for _ in 0..2 {
        let mut command = binary();
        command
            .args(["compress", "in.mlpackage", "--nbits", "2", "--force", "-o"])
            .arg(&out);
        let run = scratch.run_command(command.arg("--report").arg(&report));
        assert_eq!(run.code, 0, "{run:?}");
    }
    let folder = scratch.path("");
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, [name(b"in.mlpackage"), report, out]);
}
