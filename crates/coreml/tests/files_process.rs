//! What concerns a whole process: a full disk, an interrupt, memory. Each test runs itself again as a
//! child, so that limits and process-wide state stay out of the other tests.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use palettizer_coreml::Error;
use palettizer_coreml::blob::{WeightFile, WeightWriter};
use palettizer_coreml::package::Package;
use palettizer_coreml::package::StagedPackage;
use palettizer_coreml::proto::DataType;
use palettizer_pipeline::Error as PipelineError;
use palettizer_pipeline::staged_output::SaveOptions;
use palettizer_pipeline::staged_output::remove_unfinished;
use std::fs;
use std::io::BufWriter;
use support::{WEIGHTS, child, in_child, linear_model};
use tempfile::TempDir;

#[cfg(unix)]
#[test]
fn a_full_disk() {
    // A limit on the size of files stands in for the full disk: the same `write` fails, root or not.
    // Without the trap the system would kill the process instead.
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    if let Some(folder) = child() {
        let (package, model) = Package::open(folder.join("m.mlpackage")).unwrap();
        let mut staging =
            StagedPackage::new(&folder.join("m.mlpackage"), SaveOptions::overwriting(true))
                .unwrap();
        let mut writer = staging.create_weight_file(WEIGHTS).unwrap();
        let error = writer
            .append(DataType::UInt8, &vec![1; 4 << 20], 0)
            .unwrap_err();
        assert!(
            matches!(&error, Error::Pipeline(PipelineError::DiskFull { .. })),
            "{error:?}"
        );
        drop((writer, staging));

        // A copy of what has not changed runs into it too.
        let mut large = WeightWriter::new(std::io::Cursor::new(Vec::new())).unwrap();
        large.append(DataType::UInt8, &vec![1; 4 << 20], 0).unwrap();
        let bytes = large.finish().unwrap().into_inner();
        let large = WeightFile::from_bytes("large", bytes).unwrap();
        let package = package
            .with_weight_files([(WEIGHTS.to_owned(), large)])
            .unwrap();
        let staging =
            StagedPackage::new(&folder.join("m.mlpackage"), SaveOptions::overwriting(true))
                .unwrap();
        let error = staging.commit(&package, &model).unwrap_err();
        assert!(
            matches!(&error, Error::Pipeline(PipelineError::DiskFull { .. })),
            "{error:?}"
        );
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = linear_model().write(&folder.path().join("m.mlpackage"));
    let before = fs::read(path.join("Data/com.apple.CoreML/model.mlmodel")).unwrap();
    in_child("a_full_disk", limited, folder.path());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "something is left behind"
    );
    let after = fs::read(path.join("Data/com.apple.CoreML/model.mlmodel")).unwrap();
    assert_eq!(before, after);
    Package::open(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn an_interrupt() {
    if let Some(folder) = child() {
        let out = folder.join("out.mlpackage");
        let (package, model) = linear_model().open();
        let mut staging = StagedPackage::new(&out, SaveOptions::overwriting(false)).unwrap();
        let mut writer = staging.create_weight_file(WEIGHTS).unwrap();
        writer.append(DataType::UInt8, &[1], 0).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        std::thread::spawn(remove_unfinished).join().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        // The thread at work finds out, and puts nothing in place.
        staging.commit(&package, &model).unwrap_err();
        let error = StagedPackage::new(&out, SaveOptions::overwriting(false)).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        return;
    }
    let folder = TempDir::new().unwrap();
    in_child("an_interrupt", "exec \"$@\"", folder.path());
}

/// Megabytes of this process that are in memory.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_given_back() {
    if let Some(folder) = child() {
        let path = folder.join("weight.bin");
        let mut writer =
            WeightWriter::new(BufWriter::new(fs::File::create(&path).unwrap())).unwrap();
        let data = vec![1u8; 64 << 20];
        let offset = writer.append(DataType::UInt8, &data, 0).unwrap();
        drop((writer.finish().unwrap(), data));

        let file = WeightFile::open(&path).unwrap();
        let start = resident();
        let sum = || {
            file.blob(offset)
                .unwrap()
                .data
                .iter()
                .map(|&b| u64::from(b))
                .sum::<u64>()
        };
        assert_eq!(sum(), 64 << 20);
        let full = resident();
        file.release(file.blob(offset).unwrap().data_range());
        let released = resident();
        assert!(full >= start + 60, "{start} {full}");
        assert!(released <= start + 4, "{start} {full} {released}");
        assert_eq!(sum(), 64 << 20, "the data are still there");

        // A copy of a whole package stays small as well.
        file.release(0..file.len());
        let (package, model) = linear_model().open();
        let package = package
            .with_weight_files([(WEIGHTS.to_owned(), file)])
            .unwrap();
        let staging = StagedPackage::new(
            &folder.join("out.mlpackage"),
            SaveOptions::overwriting(false),
        )
        .unwrap();
        staging.commit(&package, &model).unwrap();
        assert!(resident() <= start + 8, "{start} {}", resident());
        return;
    }
    let folder = TempDir::new().unwrap();
    in_child("memory_is_given_back", "exec \"$@\"", folder.path());
}
