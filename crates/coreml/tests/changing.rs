//! Files that are no files, and files that change while they are read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use palettizer_coreml::package::PackageError;
use palettizer_coreml::{Error, Model};
use palettizer_palette::{Mode, Nbits, PaletteSpec};
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::Progress;
use palettizer_pipeline::config::{OpPalettizerConfig, OptimizationConfig};
use palettizer_pipeline::mapped_file::guard_mappings;
use palettizer_pipeline::staged_output::SaveOptions;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Builder, values};
use tempfile::TempDir;

const FILE: &str = "Data/com.apple.CoreML/weights/weight.bin";

/// A package of forty megabytes in twenty layers: more than one batch of work.
fn large(folder: &Path) -> PathBuf {
    const SIDE: u64 = 1024;
    let weight = values((SIDE * SIDE) as usize);
    let mut builder = Builder::new("CoreML8").input("x", &[1, SIDE]);
    let mut before = "x".to_owned();
    for layer in 0..20 {
        let (name, weights) = (format!("fc{layer}"), format!("w{layer}"));
        builder = builder.weight(&weights, &[SIDE, SIDE], &weight).op(
            "linear",
            &name,
            &[("x", &before), ("weight", &weights)],
            &[1, SIDE],
        );
        before = name;
    }
    let parts = builder.output(&before).build();
    parts.write(&folder.join("in.mlpackage"))
}

/// Does something to the weight file once some weights are done.
struct Meanwhile<'a> {
    file: PathBuf,
    done: AtomicUsize,
    act: &'a (dyn Fn(&Path) + Sync),
}

impl Progress for Meanwhile<'_> {
    fn advance(&self, _name: &str, _bytes: u64) {
        if self.done.fetch_add(1, Ordering::SeqCst) == 2 {
            (self.act)(&self.file);
        }
    }
}

fn config() -> OptimizationConfig {
    let spec = PaletteSpec::new(Mode::Uniform(Nbits::B4));
    OptimizationConfig::new().with_global(OpPalettizerConfig::new(spec))
}

/// What comes of a package whose weight file meets with something, and what is in the folder afterwards.
fn palettize(act: &(dyn Fn(&Path) + Sync)) -> (Result<(), Error>, Vec<String>) {
    guard_mappings();
    let folder = TempDir::new().unwrap();
    let path = large(folder.path());
    let model = Model::open(&path).unwrap();
    let progress = Meanwhile {
        file: path.join(FILE),
        done: AtomicUsize::new(0),
        act,
    };
    let out = folder.path().join("out.mlpackage");
    let done = model.palettize_to(&config(), &out, SaveOptions::overwriting(false), &progress);
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (done.map(drop), names)
}

fn is_changed(done: Result<(), Error>, expected: &str) {
    match done {
        Err(Error::Pipeline(PipelineError::Changed { path, what })) => {
            assert!(path.ends_with(FILE), "{}", path.display());
            assert!(what.contains(expected), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_short_is_an_error_that_names_it() {
    let cut = |file: &Path| {
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(100)
            .unwrap()
    };
    let (done, names) = palettize(&cut);
    is_changed(done, "has 100 now");
    assert_eq!(names, ["in.mlpackage"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_short_and_filled_again_is_an_error_too() {
    let refill = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        let file = File::options().write(true).open(file).unwrap();
        file.set_len(0).unwrap();
        (&file).write_all(&bytes).unwrap();
    };
    let (done, names) = palettize(&refill);
    is_changed(done, "");
    assert_eq!(names, ["in.mlpackage"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_written_to_is_an_error() {
    let append = |file: &Path| {
        let mut file = File::options().append(true).open(file).unwrap();
        file.write_all(b"more").unwrap();
    };
    let (done, names) = palettize(&append);
    is_changed(done, "bytes and has");
    assert_eq!(names, ["in.mlpackage"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_is_still_the_one_that_was_opened() {
    let replace = |file: &Path| {
        let other = file.with_extension("new");
        fs::write(&other, "another file").unwrap();
        fs::rename(&other, file).unwrap();
    };
    let (done, names) = palettize(&replace);
    done.unwrap();
    assert_eq!(names, ["in.mlpackage", "out.mlpackage"]);
}

#[cfg(unix)]
#[test]
fn a_file_cut_short_between_calls_is_found_by_the_next() {
    guard_mappings();
    let folder = TempDir::new().unwrap();
    let path = large(folder.path());
    let model = Model::open(&path).unwrap();
    let file = File::options().write(true).open(path.join(FILE)).unwrap();
    file.set_len(0).unwrap();
    let done = [
        model.weights(0).map(drop),
        model.weight_values("w3").map(drop),
        model.decompress(&()).map(drop),
        model.save(
            folder.path().join("out.mlpackage"),
            SaveOptions::overwriting(false),
        ),
        model.palettize(&config(), &()).map(drop),
    ];
    for (at, done) in done.into_iter().enumerate() {
        // A model without compressed weights is made dense without a look at them.
        match (at, done) {
            (2, Ok(())) => {}
            (_, done) => is_changed(done, "has 0 now"),
        }
    }
    assert!(!folder.path().join("out.mlpackage").exists());
}

/// Whoever opens a pipe waits for its writer: these return only because nobody opens them.
#[cfg(unix)]
#[test]
fn pipes_sockets_and_devices_are_refused_before_they_are_opened() {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    let folder = TempDir::new().unwrap();
    let small = support::linear_model();
    let fifo = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    let socket = |path: &Path| drop(UnixListener::bind(path).unwrap());
    let device = |path: &Path| symlink("/dev/zero", path).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Make<'_>); 3] = [
        ("a pipe", &fifo),
        ("a socket", &socket),
        ("a device", &device),
    ];
    for (expected, make) in kinds {
        let strange = |error: Error, path: &Path| match &error {
            Error::Pipeline(PipelineError::NotAFile { path: at, .. }) => {
                assert_eq!(at, path);
                assert!(error.to_string().contains(expected), "{error}");
            }
            // A link out of the package is refused as such.
            Error::Package(PackageError::UnsafePath { .. }) => assert_eq!(expected, "a device"),
            other => panic!("{other}"),
        };
        let bare = folder.path().join("m.mlmodel");
        make(&bare);
        strange(Model::open(&bare).unwrap_err(), &bare);
        fs::remove_file(&bare).unwrap();
        for file in [
            "Manifest.json",
            "Data/com.apple.CoreML/model.mlmodel",
            FILE,
            "Data/extra",
        ] {
            let path = small.write(&folder.path().join("m.mlpackage"));
            let file = path.join(file);
            drop(fs::remove_file(&file));
            make(&file);
            strange(Model::open(&path).unwrap_err(), &file);
            fs::remove_dir_all(&path).unwrap();
        }
    }
}

/// Root may read everything, so that nothing can be shown to it.
#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_read_is_not_called_missing() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let path = support::linear_model().write(&folder.path().join("m.mlpackage"));
    let data = path.join("Data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&data).is_err() {
        let error = Model::open(&path).unwrap_err();
        assert!(error.to_string().contains("ermission denied"), "{error}");
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    // A loop of links cannot be looked into by root either.
    fs::rename(&data, path.join("Data2")).unwrap();
    std::os::unix::fs::symlink("Data", &data).unwrap();
    let error = Model::open(&path).unwrap_err();
    assert!(
        !matches!(error, Error::Package(PackageError::MissingItem { .. })),
        "{error}"
    );
}
