//! Deterministic simulation: the engine, the store and the sessions that ship, in a world that breaks them.
//!
//! ```text
//!   seed ─► Scenario ─► World: one queue of happenings, ordered by (true time, number)
//!                         │  coordinator process: clock, Engine, Disk   crash after any effect, restart, refused writes
//!                         │  worker processes: clock, Session, task     crash, restart, straggle, lie
//!                         │        beside it a Follower and its folder  fetch, evaluate, swap, die over any of it
//!                         │  operator: starts and steers rollouts       is not answered
//!                         │  network: latency, bandwidth, broken connections, late deliveries, partitions
//!                         ├─► Trace: a line an event, and their digest
//!                         └─► invariants: one file each, told everything that can be seen from outside
//! ```
//!
//! A run has two phases. In the first anything may fail, and safety has to hold; in the second nothing fails any
//! more, and the run has to finish within a bound. One seed is one run, on any machine and number of threads.
//!
//! Nothing here is part of what ships, and nothing that ships knows of it. Where this shell has to behave as the
//! coordinator's server or the worker's client does (which connection counts, what a timer measures, what is still
//! read after a close), it says so.

mod brief;
pub mod clock;
pub mod coordinator;
pub mod counts;
pub mod device;
pub mod disk;
mod doubt;
mod following;
pub mod forgetful;
pub mod invariants;
pub mod malice;
pub mod network;
mod operator;
pub mod rollouts;
pub mod run;
pub mod sabotage;
pub mod scenario;
mod shelf;
pub mod stand_in;
pub mod sweep;
pub mod trace;
pub mod world;

pub use invariants::Violation;
pub use run::{Outcome, Wish, run};
pub use sabotage::Sabotage;
pub use scenario::StoreKind;
pub use sweep::{Sweep, sweep};
