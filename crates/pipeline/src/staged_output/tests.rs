//! Killed at every step: a child ends in front of one change of the disk, the first to the last. Then the output is whole,
//! the old or the new one, the next run does its work, and nothing is left over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::disk::faults;
use super::{NewFile, SaveOptions, StagedOutput, disk, folder, recover};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// For a child: what it shall do, and the step at which it ends.
const CHILD: &str = "PALETTIZER_TEST_SAVE";

/// The bytes of files, by their paths in an output.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

fn overwriting(force: bool) -> SaveOptions {
    SaveOptions::overwriting(force)
}

/// What a run writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    File,
    Package,
    /// A package that takes the place of its own input.
    InPlace,
}

/// A run, which writes `new` in a folder.
#[derive(Clone, Copy, Debug)]
struct Run {
    what: What,
    /// Over an old output.
    force: bool,
    exchange: bool,
}

const RUNS: [Run; 8] = {
    const fn run(what: What, force: bool, exchange: bool) -> Run {
        Run {
            what,
            force,
            exchange,
        }
    }
    [
        run(What::File, false, true),
        run(What::File, true, true),
        run(What::File, true, false),
        run(What::Package, false, true),
        run(What::Package, true, true),
        run(What::Package, true, false),
        run(What::InPlace, true, true),
        run(What::InPlace, true, false),
    ]
};

impl Run {
    fn out(self, folder: &Path) -> PathBuf {
        folder.join(match self.what {
            What::File => "out.bin",
            What::Package | What::InPlace => "out.mlpackage",
        })
    }

    /// A folder with an input, and perhaps an old output.
    fn prepared(self) -> TempDir {
        let folder = TempDir::new().unwrap();
        save(&folder.path().join("in.mlpackage"), 2, false).unwrap();
        fs::write(folder.path().join("mine.txt"), "mine").unwrap();
        if self.force {
            self.write(folder.path(), 1, false).unwrap();
        }
        folder
    }

    /// Writes the output of this number.
    fn write(self, folder: &Path, number: u8, force: bool) -> Result<(), crate::Error> {
        let out = self.out(folder);
        match self.what {
            What::File => {
                let staged = StagedOutput::file(&out, overwriting(force))?;
                let mut file = NewFile::create(&staged.built()).unwrap();
                file.write_all(&[number; 100]).unwrap();
                file.write_all(&[number; 100]).unwrap();
                file.sync().unwrap();
                staged.commit()
            }
            What::Package => save(&out, number, force),
            What::InPlace if force => {
                recover(&out);
                assert!(out.join("Data/kept.bin").is_file());
                save(&out, number, true)
            }
            What::InPlace => save(&out, number, false),
        }
    }

    /// Runs as a child that ends in front of this step; `true` if it came to its end before.
    fn killed(self, folder: &Path, step: u32) -> bool {
        let this = format!("{}::a_run_that_is_killed", module_path!());
        let this = this.split_once("::").unwrap().1;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([this, "--exact", "--nocapture"]);
        let at = RUNS
            .iter()
            .position(|run| format!("{run:?}") == format!("{self:?}"));
        let task = format!("{} {step} {}", at.unwrap(), folder.display());
        let output = command.env(CHILD, task).output().unwrap();
        match output.status.code() {
            Some(0) => true,
            Some(faults::KILLED) => false,
            _ => panic!("{self:?} at {step}: {output:?}"),
        }
    }

    /// What the output is: its number, or that there is none. Anything between fails the test.
    #[track_caller]
    fn found(self, folder: &Path) -> Option<u8> {
        let out = self.out(folder);
        if fs::symlink_metadata(&out).is_err() {
            return None;
        }
        let found = contents(&out);
        let number = (1..=2).find(|number| *self.whole(*number) == found);
        assert!(
            number.is_some(),
            "{self:?}: half an output: {:?}",
            found.keys()
        );
        number
    }

    /// What an output of this number holds.
    fn whole(self, number: u8) -> &'static Contents {
        static WHOLE: [[OnceLock<Contents>; 2]; 2] = [const { [const { OnceLock::new() }; 2] }; 2];
        let whole = &WHOLE[usize::from(self.what == What::File)][usize::from(number) - 1];
        whole.get_or_init(|| {
            let folder = TempDir::new().unwrap();
            self.write(folder.path(), number, false).unwrap();
            contents(&self.out(folder.path()))
        })
    }

    fn names(self) -> Vec<String> {
        let out = self.out(Path::new(""));
        vec![
            "in.mlpackage".into(),
            "mine.txt".into(),
            out.to_str().unwrap().into(),
        ]
    }
}

/// Writes a folder of this number as packages are written: some files in the scratch folder first, some copied.
fn save(out: &Path, number: u8, force: bool) -> Result<(), crate::Error> {
    let staged = StagedOutput::folder(out, overwriting(force), |_| None)?;
    let (built, scratch) = (staged.built(), staged.scratch().join("0.bin"));
    let mut file = NewFile::create(&scratch).unwrap();
    file.write_all(&[number; 100]).unwrap();
    drop(file);
    disk::create_folders(&built.join("Data/weights")).unwrap();
    let weights = built.join("Data/weights/weight.bin");
    disk::rename(&scratch, &weights).unwrap();
    disk::sync(&weights).unwrap();
    disk::write(&built.join("Data/kept.bin"), &[7; 100]).unwrap();
    disk::write(&built.join("Manifest.json"), &[number]).unwrap();
    disk::copy(&built.join("Data/kept.bin"), &built.join("copy.bin")).unwrap();
    disk::sync(&built.join("copy.bin")).unwrap();
    for folder in ["Data/weights", "Data", ""] {
        disk::sync_folder(&built.join(folder)).unwrap();
    }
    staged.commit()
}

/// The bytes of a file, or of all files in a folder.
fn contents(path: &Path) -> Contents {
    let mut found = BTreeMap::new();
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => ahead.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    // By their names below the path.
    let relative = |file: &PathBuf| file.strip_prefix(path).unwrap().to_owned();
    found
        .iter()
        .map(|(file, bytes)| (relative(file), bytes.clone()))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a child does; without one, nothing.
#[test]
fn a_run_that_is_killed() {
    let Ok(task) = std::env::var(CHILD) else {
        return;
    };
    let mut words = task.splitn(3, ' ');
    let run = RUNS[words.next().unwrap().parse::<usize>().unwrap()];
    let step = words.next().unwrap().parse().unwrap();
    let folder = words.next().unwrap();
    faults::without_exchange(!run.exchange);
    faults::end_at(step);
    run.write(Path::new(folder), 2, run.force).unwrap();
}

#[test]
fn killed_at_every_step() {
    for run in RUNS {
        let mut states = Vec::new();
        for step in 1.. {
            let folder = run.prepared();
            let here = folder.path();
            let input = contents(&here.join("in.mlpackage"));
            let done = run.killed(here, step);
            let found = run.found(here);
            states.push(found);
            if run.force && (run.exchange || run.what == What::File) {
                assert!(found.is_some(), "{run:?} at {step}: nothing is there");
            }

            // Another run in the folder puts everything right.
            fs::remove_file(here.join("mine.txt")).unwrap();
            let other = StagedOutput::file(&here.join("mine.txt"), overwriting(false)).unwrap();
            fs::write(other.built(), "mine").unwrap();
            other.commit().unwrap();
            let put_right = run.found(here);
            assert_eq!(put_right, if run.force { found.or(Some(1)) } else { found });
            let mut expected = run.names();
            expected.retain(|name| put_right.is_some() || !run.out(here).ends_with(name));
            assert_eq!(names(here), expected, "{run:?} at {step}");

            // And the same run does what it was to do.
            if put_right.is_none() || run.force {
                run.write(here, 2, run.force).unwrap();
            }
            assert_eq!(run.found(here), Some(2), "{run:?} at {step}");
            assert_eq!(names(here), run.names(), "{run:?} at {step}");
            assert_eq!(contents(&here.join("in.mlpackage")), input);
            if done {
                break;
            }
        }
        let old = run.force.then_some(1);
        let turns: Vec<Option<u8>> = {
            let mut turns = states.clone();
            turns.dedup();
            turns
        };
        match run.what != What::File && !run.exchange {
            // the two renamings
            true => assert_eq!(turns, [Some(1), None, Some(2)], "{run:?}"),
            false => assert_eq!(turns, [old, Some(2)], "{run:?}"),
        }
        assert!(states.len() > 10, "{run:?} has {} steps", states.len());
    }
}

#[test]
fn killed_while_it_puts_right() {
    let run = RUNS[5];
    assert!(run.what == What::Package && run.force && !run.exchange);
    let missing = |step: &u32| {
        let folder = run.prepared();
        assert!(!run.killed(folder.path(), *step));
        run.found(folder.path()).is_none()
    };
    let step = (1..).find(missing).unwrap();
    let mut restored = 0;
    for second in 1.. {
        let folder = run.prepared();
        let here = folder.path();
        run.killed(here, step);
        let done = run.killed(here, second);
        restored += u32::from(run.found(here) == Some(1));
        recover(&run.out(here));
        folder::sweep(here);
        assert!(run.found(here).is_some(), "lost at {second}");
        assert_eq!(names(here), run.names(), "at {second}");
        if done {
            break;
        }
    }
    assert!(restored > 5, "{restored}");
}

#[test]
fn in_place_the_next_run_finds_its_input_again() {
    let run = RUNS[7];
    assert!(run.what == What::InPlace && !run.exchange);
    for step in 1.. {
        let folder = run.prepared();
        let done = run.killed(folder.path(), step);
        assert!(!done, "it was never killed between the renamings");
        if run.found(folder.path()).is_none() {
            run.write(folder.path(), 2, true).unwrap();
            assert_eq!(run.found(folder.path()), Some(2));
            assert_eq!(names(folder.path()), run.names());
            break;
        }
    }
}

#[test]
fn a_live_run_is_not_disturbed() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    let first = StagedOutput::file(&here.join("first"), overwriting(false)).unwrap();
    fs::write(first.built(), "1").unwrap();
    let second = StagedOutput::file(&here.join("second"), overwriting(false)).unwrap();
    fs::write(second.built(), "2").unwrap();
    assert_eq!(names(here).len(), 2);
    second.commit().unwrap();
    folder::sweep(here);
    first.commit().unwrap();
    assert_eq!(names(here), ["first", "second"]);
}

#[test]
fn folders_that_nobody_is_sure_of_stay() {
    let folder = TempDir::new().unwrap();
    let here = folder.path();
    // Of somebody else's making: something in it, and no owner.
    fs::create_dir(here.join(".palettizer-1")).unwrap();
    fs::write(here.join(".palettizer-1/mine"), "").unwrap();
    fs::create_dir_all(here.join(".palettizer-2/owner")).unwrap();
    fs::write(here.join(".palettizer-3"), "").unwrap();
    fs::create_dir(here.join(".palettizer-empty")).unwrap();
    // Something else has come to the place of what was moved away.
    let held = here.join(".palettizer-4");
    fs::create_dir_all(held.join("old")).unwrap();
    for name in ["owner", "new", "old/a", "old/b"] {
        fs::write(held.join(name), "old").unwrap();
    }
    fs::write(here.join("a"), "another").unwrap();
    drop(StagedOutput::file(&here.join("out"), overwriting(false)).unwrap());
    assert_eq!(
        names(here),
        [
            ".palettizer-1",
            ".palettizer-2",
            ".palettizer-3",
            ".palettizer-4",
            "a",
            "b"
        ]
    );
    assert_eq!(fs::read(here.join("a")).unwrap(), b"another");
    assert_eq!(names(&held.join("old")), ["a"]);
}
