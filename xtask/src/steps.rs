//! Named, timed steps with a summary: what ran, how long it took, what failed.
//!
//! A failed step does not stop the next one, since a person wants all failures of one run. Invariant:
//! `finish` fails exactly when a step did.

use crate::process;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    outcome: Outcome,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

impl Steps {
    /// Runs one step and remembers how it went; true where it passed.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) -> bool {
        println!("\n==== {name}");
        let start = Instant::now();
        let result = step();
        let took = start.elapsed();
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        let passed = matches!(outcome, Outcome::Passed);
        let step = Step { name: name.to_owned(), took, outcome };
        println!("---- {}", step.line());
        self.done.push(step);
        passed
    }

    /// Notes a step that cannot run here, with the reason.
    pub fn skip(&mut self, name: &str, why: &str) {
        let step =
            Step { name: name.to_owned(), took: Duration::ZERO, outcome: Outcome::Skipped(why.to_owned()) };
        println!("\n==== {name}\n---- {}", step.line());
        self.done.push(step);
    }

    /// Prints the table; an error where any step failed.
    pub fn finish(self) -> Result<()> {
        println!("\n==== summary");
        for step in &self.done {
            println!("{}", step.line());
        }
        let count = |wanted: fn(&Outcome) -> bool| self.done.iter().filter(|s| wanted(&s.outcome)).count();
        let passed = count(|o| matches!(o, Outcome::Passed));
        let skipped = count(|o| matches!(o, Outcome::Skipped(_)));
        let failed: Vec<&str> = self
            .done
            .iter()
            .filter(|s| matches!(s.outcome, Outcome::Failed(_)))
            .map(|s| s.name.as_str())
            .collect();
        println!("steps: {passed} passed, {} failed, {skipped} skipped", failed.len());
        if !failed.is_empty() {
            bail!("{} failed: {}", process::count(failed.len(), "step"), failed.join(", "));
        }
        Ok(())
    }
}

impl Step {
    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        match &self.outcome {
            Outcome::Passed => format!("ok      {seconds:7.1} s  {}", self.name),
            Outcome::Failed(why) => format!("FAILED  {seconds:7.1} s  {}: {why}", self.name),
            Outcome::Skipped(why) => format!("skipped           {}: {why}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_run_and_stops_nothing() {
        let mut steps = Steps::default();
        assert!(!steps.run("first", || bail!("broken")));
        assert!(steps.run("second", || Ok(())));
        steps.skip("third", "needs root");
        assert_eq!(steps.finish().unwrap_err().to_string(), "1 step failed: first");
    }

    #[test]
    fn a_skip_is_no_failure() {
        let mut steps = Steps::default();
        steps.run("first", || Ok(()));
        steps.skip("second", "needs root");
        assert!(steps.finish().is_ok());
    }
}
