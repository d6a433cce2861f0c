//! A task in steps: what runs, what it takes, how it ended.

use std::time::{Duration, Instant};

/// A step before it runs.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Time and disk on two cores, for the first run and for later ones.
    pub(crate) takes: &'static str,
}

/// One line of the summary.
struct Done {
    name: &'static str,
    took: Duration,
    failed: Option<String>,
}

/// The steps of a task, in order.
pub(crate) struct Steps {
    ahead: std::vec::IntoIter<Step>,
    done: Vec<Done>,
}

impl Steps {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self {
            ahead: steps.into_iter(),
            done: Vec::new(),
        }
    }

    /// Runs the next step; a failure is kept for the summary, so that one run shows everything that is wrong.
    pub(crate) fn run<T>(&mut self, work: impl FnOnce() -> Result<T, String>) -> Option<T> {
        let count = self.done.len() + self.ahead.len();
        let Step { name, takes } = self.ahead.next()?;
        println!(
            "xtask: {} of {count}: {name} ({takes})",
            self.done.len() + 1
        );
        let start = Instant::now();
        let (value, failed) = match work() {
            Ok(value) => (Some(value), None),
            Err(message) => (None, Some(message)),
        };
        self.done.push(Done {
            name,
            took: start.elapsed(),
            failed,
        });
        value
    }

    /// Says how each step ended; what could not run counts as failed.
    pub(crate) fn finish(self) -> Result<(), String> {
        println!("\nxtask: summary");
        for step in &self.done {
            let seconds = step.took.as_secs_f64();
            let end = step.failed.as_deref().unwrap_or("passed");
            println!("  {:<28} {seconds:>7.1} s  {end}", step.name);
        }
        for step in self.ahead.as_slice() {
            println!("  {:<28} {:>9}  not run", step.name, "");
        }
        let count = self.done.len() + self.ahead.len();
        let passed = self
            .done
            .iter()
            .filter(|step| step.failed.is_none())
            .count();
        if passed == count {
            Ok(())
        } else {
            Err(format!("{} of {count} steps failed", count - passed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Steps};

    fn two() -> Steps {
        let step = |name| Step {
            name,
            takes: "no time",
        };
        Steps::new(vec![step("one"), step("two")])
    }

    #[test]
    fn a_failure_does_not_stop_the_next_step() {
        let mut steps = two();
        assert_eq!(steps.run(|| Err::<(), _>("broken".to_owned())), None);
        assert_eq!(steps.run(|| Ok(2)), Some(2));
        assert_eq!(steps.finish().unwrap_err(), "1 of 2 steps failed");
    }

    #[test]
    fn what_did_not_run_has_not_passed() {
        let mut steps = two();
        steps.run(|| Ok(()));
        assert!(steps.finish().is_err());
    }

    #[test]
    fn all_passed() {
        let mut steps = two();
        steps.run(|| Ok(()));
        steps.run(|| Ok(()));
        assert_eq!(steps.finish(), Ok(()));
    }
}
