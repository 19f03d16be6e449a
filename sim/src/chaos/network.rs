//! Connections in the simulated network: when what is sent arrives, and what of it does not.
//!
//! A stream is reliable while its connection lives: on the control stream everything arrives in order; streams of
//! updates overtake it and one another. When a connection breaks, what is in flight is lost, but for an update that
//! the other side had read already and takes up late. A worker that is cut off sends and hears nothing until the
//! partition ends; if that takes longer than a silent peer is waited for, its connection breaks. It does not know
//! what frames mean.

use std::collections::BTreeMap;

use packfed_codec::{Seed, Stream};
use packfed_protocol::Timestamp;
use packfed_protocol::quic::IDLE_TIMEOUT;

use super::scenario::Faults;
use crate::carry::Pipe;

/// Names one connection of the run.
pub type ConnectionId = u64;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the worker.
    Up,
    /// To the worker.
    Down,
}

/// One connection, for as long as anybody may speak of it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Whose.
    pub worker: usize,
    /// Which process of the worker.
    pub life: u64,
    /// Which process of the coordinator.
    pub process: u64,
    /// Whether it carries nothing any more.
    pub broken: bool,
    control: [Control; 2],
}

/// One direction of a control stream.
#[derive(Clone, Copy, Debug, Default)]
struct Control {
    pipe: Pipe,
    last: Timestamp,
}

/// See the module.
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
    cut_until: Vec<Timestamp>,
    faults: Faults,
    /// Whether faults are off: everything is quick and nothing breaks.
    calm: bool,
    stream: Stream,
}

/// Longest latency once faults are off.
const CALM_LATENCY_MS: u64 = 20;
/// Bytes per second once faults are off.
const CALM_BYTES_PER_S: u64 = 1_000_000;

/// After how long a silent peer counts as gone, in milliseconds.
#[must_use]
pub fn idle_ms() -> u64 {
    u64::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u64::MAX)
}

impl Network {
    /// A network of so many workers, none of them connected.
    #[must_use]
    pub fn new(seed: &Seed, faults: Faults, workers: usize) -> Self {
        let stream = seed.derive("packfed/chaos/network/1", &[]).stream();
        let cut_until = vec![Timestamp(0); workers];
        Self { connections: BTreeMap::new(), next: 0, cut_until, faults, calm: false, stream }
    }

    /// From here on nothing is slow, lost or cut off.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.cut_until.fill(Timestamp(0));
    }

    /// A connection between these two processes.
    pub fn open(&mut self, worker: usize, life: u64, process: u64) -> ConnectionId {
        self.next += 1;
        let control = [Control::default(); 2];
        self.connections.insert(self.next, Connection { worker, life, process, broken: false, control });
        self.next
    }

    /// A connection, if there ever was one of this number.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Whether a connection carries anything.
    #[must_use]
    pub fn lives(&self, id: ConnectionId) -> bool {
        self.get(id).is_some_and(|connection| !connection.broken)
    }

    /// Breaks a connection; whether it was whole.
    pub fn break_off(&mut self, id: ConnectionId) -> bool {
        self.connections.get_mut(&id).is_some_and(|connection| !std::mem::replace(&mut connection.broken, true))
    }

    /// Connections that carry something, oldest first.
    pub fn living(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.connections.iter().filter(|(_, connection)| !connection.broken).map(|(&id, connection)| (id, connection))
    }

    /// When something that is sent on a control stream now arrives: after all that was sent on it before.
    pub fn on_control(&mut self, id: ConnectionId, way: Way, now: Timestamp, bytes: usize) -> Timestamp {
        let (latency, rate) = (self.latency_ms(), self.bytes_per_s());
        let Some(connection) = self.connections.get_mut(&id) else { return now };
        let control = &mut connection.control[usize::from(way == Way::Down)];
        control.last = control.pipe.arrival(now, bytes, rate, latency).max(control.last);
        control.last
    }

    /// When something that is sent on a stream of its own now arrives.
    pub fn on_own_stream(&mut self, now: Timestamp, bytes: usize) -> Timestamp {
        let (latency, rate) = (self.latency_ms(), self.bytes_per_s());
        Pipe::default().arrival(now, bytes, rate, latency)
    }

    /// A latency, one way.
    pub fn latency_ms(&mut self) -> u64 {
        let [least, most] = if self.calm { [1, CALM_LATENCY_MS] } else { self.faults.latency_ms };
        least + self.stream.below(most - least + 1)
    }

    /// How long a side takes to notice that a connection is broken.
    pub fn noticed_ms(&mut self) -> u64 {
        self.stream.below(idle_ms() + 1)
    }

    /// Whether an update that was in flight on a broken connection is read all the same.
    pub fn is_read_late(&mut self) -> bool {
        self.stream.unit() < self.faults.late
    }

    /// Cuts a worker off until then.
    pub fn cut(&mut self, worker: usize, until: Timestamp) {
        self.cut_until[worker] = self.cut_until[worker].max(until);
    }

    /// Until when a worker is cut off, if it is.
    #[must_use]
    pub fn cut_until(&self, worker: usize, now: Timestamp) -> Option<Timestamp> {
        Some(self.cut_until[worker]).filter(|&until| until > now)
    }

    fn bytes_per_s(&self) -> u64 {
        if self.calm { CALM_BYTES_PER_S } else { self.faults.bytes_per_s }
    }
}
