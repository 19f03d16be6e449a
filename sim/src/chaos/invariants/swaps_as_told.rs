//! A worker swaps to what it was told last and to nothing else: one that has heard of an abort never comes to run what
//! was aborted. Whatever its process dies over, it comes up with the release that ran before or the one after.

use std::collections::BTreeMap;

use packfed_protocol::{ReleaseRef, Timestamp};

use super::kept::name;
use super::{Invariant, Seen};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SwapsAsTold {
    workers: BTreeMap<usize, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What its process was told last, if it was.
    told: Option<Option<ReleaseRef>>,
    /// What its disk says.
    runs: Option<ReleaseRef>,
}

impl Invariant for SwapsAsTold {
    fn name(&self) -> &'static str {
        "a worker swaps to what it was told last"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::FollowerStarts { worker, runs } => {
                let known = self.workers.entry(*worker).or_default();
                known.told = None;
                if known.runs == *runs {
                    return Ok(());
                }
                Err(format!("w{worker} comes up with {}, it ran {}", name(*runs), name(known.runs)))
            }
            Seen::Told { worker, target } => {
                self.workers.entry(*worker).or_default().told = Some(*target);
                Ok(())
            }
            Seen::Swapped { worker, to } => {
                let known = self.workers.entry(*worker).or_default();
                known.runs = *to;
                match known.told {
                    Some(told) if told == *to => Ok(()),
                    Some(told) => Err(format!("w{worker} runs {}, it was told {} last", name(*to), name(told))),
                    None => Err(format!("w{worker} runs {}, it was told nothing", name(*to))),
                }
            }
            _ => Ok(()),
        }
    }
}
