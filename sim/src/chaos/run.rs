//! One seed: a run with faults, the same run healed, and what the invariants say.

use std::panic::{AssertUnwindSafe, catch_unwind};

use packfed_codec::Seed;
use packfed_protocol::{Digest, Timestamp};
use serde::Serialize;

use super::counts::Counts;
use super::invariants::{Seen, Violation, over_within_ms};
use super::sabotage::Sabotage;
use super::scenario::{Scenario, StoreKind};
use super::world::World;

/// What a run is asked for beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Where the coordinator keeps its run; the seed's own choice unless it is named.
    pub store: Option<StoreKind>,
    /// A guard to break.
    pub sabotage: Option<Sabotage>,
    /// Whether the trace is to be read.
    pub readable: bool,
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Digest of its trace.
    pub digest: Digest,
    /// How often what happened.
    pub counts: Counts,
    /// Promises that were broken at the first moment at which one was.
    pub violations: Vec<Violation>,
    /// The trace, if it was to be read.
    #[serde(skip)]
    pub trace: Vec<String>,
}

/// Things that may happen in a run; more of them lead nowhere.
const EVENTS_MAX: u64 = 1_000_000;

/// Runs a seed to its end or to the first broken promise. A panic is a broken promise.
#[must_use]
pub fn run(seed: u64, wish: &Wish) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| attempt(seed, wish))) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(why)) => broken(seed, "a seed makes a world", &why),
        Err(panic) => broken(seed, "nothing panics", &words(panic.as_ref())),
    }
}

fn attempt(number: u64, wish: &Wish) -> Result<Outcome, String> {
    let seed = Seed::from_number(number).derive("packfed/chaos/1", &[]);
    let scenario = Scenario::draw(&seed, wish.store).map_err(|error| error.to_string())?;
    let ends = Timestamp(scenario.heals_at_ms).plus(over_within_ms(&scenario));
    let mut world = World::new(&seed, scenario, wish.sabotage, wish.readable).map_err(|error| error.to_string())?;
    for _ in 0..EVENTS_MAX {
        if world.over() || world.now > ends || !world.invariants.violations().is_empty() || !world.step() {
            break;
        }
    }
    world.end();
    let digest = world.trace.digest();
    let counts = Counts { events: world.trace.events(), ..world.counts };
    let violations = world.invariants.violations().to_vec();
    Ok(Outcome { seed: number, digest, counts, violations, trace: world.trace.into_lines().unwrap_or_default() })
}

impl World {
    /// Asks whether the end is one.
    fn end(&mut self) {
        if self.invariants.violations().is_empty() {
            let version = self.process.as_ref().map_or(0, |process| process.engine().head().version());
            let (unfinished, soaking, astray) = (self.unfinished(), self.soaking(), self.astray());
            self.see(&Seen::Ended { version, unfinished, soaking, astray });
        }
        for violation in self.invariants.violations().to_vec() {
            self.say(format_args!("VIOLATION of: {violation}"));
        }
    }
}

fn broken(seed: u64, promise: &str, what: &str) -> Outcome {
    let violation = Violation { invariant: promise.to_owned(), what: what.to_owned(), at_ms: 0 };
    let (digest, counts) = (Digest([0; 32]), Counts::default());
    Outcome { seed, digest, counts, violations: vec![violation], trace: Vec::new() }
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
