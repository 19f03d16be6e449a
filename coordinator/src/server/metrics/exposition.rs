//! One scrape: everything that is known at this moment, as text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::super::shared::Shared;
use super::super::traffic::Bytes;
use super::memory::resident;
use super::{Metrics, Shown};
use crate::redb_store::RedbStore;
use crate::status::{Status, StatusStage};

pub(super) fn exposition(shared: &Shared, store: Option<PathBuf>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("packfed");
    register(&mut registry, &shared.metrics);
    let bytes_of = |path: &Path| std::fs::metadata(path).ok().map(|file| file.len());
    let store_bytes = store.and_then(|path| Some(bytes_of(&path)? + bytes_of(&RedbStore::journal_path(&path))?));
    let (bytes, resident) = (shared.traffic.bytes(), resident());
    registry.register_collector(Box::new(Moment { shown: shared.metrics.shown(), bytes, store_bytes, resident }));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

/// What is counted where it happens.
fn register(registry: &mut Registry, metrics: &Metrics) {
    registry.register("connections", "Open connections", metrics.connections.clone());
    registry.register("connections_taken", "Connections that were taken", metrics.connections_taken.clone());
    let refused = metrics.connections_refused.clone();
    registry.register("connections_refused", "Connections that were turned away, as there were too many", refused);
    let help = "Seconds from the last byte of an update to its verdict";
    registry.register("upload_to_verdict_seconds", help, metrics.verdict_seconds.clone());
    let help = "Seconds until a group of writes is durable";
    registry.register("journal_write_seconds", help, metrics.journal_seconds.clone());
    registry.register("journal_writes", "Writes that were made durable", metrics.journal_writes.clone());
    let help = "Bytes of accepted updates that were made durable";
    registry.register("journal_bytes", help, metrics.journal_bytes.clone());
    registry.register("audit_file_bytes", "Bytes of the audit log's open segment", metrics.audit_bytes.clone());
}

/// What is read at a scrape.
#[derive(Debug)]
struct Moment {
    shown: Option<Shown>,
    bytes: Bytes,
    store_bytes: Option<u64>,
    resident: Option<[u64; 2]>,
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut lines = Lines(encoder);
        if let Some(shown) = &self.shown {
            lines.gauge("workers_connected", "Workers that are connected", shown.connected as u64)?;
            lines.status(&shown.status)?;
        }
        lines.counter("received_bytes", "Bytes of frames that were read", self.bytes.bytes_up_in_all)?;
        lines.counter("sent_bytes", "Bytes of frames that were written", self.bytes.bytes_down_in_all)?;
        if let Some(bytes) = self.store_bytes {
            lines.gauge("store_file_bytes", "Bytes of the store's file and its journal", bytes)?;
        }
        if let Some([now, peak]) = self.resident {
            lines.gauge("process_resident_bytes", "Memory of the process", now)?;
            lines.gauge("process_resident_peak_bytes", "The most memory that the process had", peak)?;
        }
        Ok(())
    }
}

struct Lines<'a>(DescriptorEncoder<'a>);

impl Lines<'_> {
    fn status(&mut self, status: &Status) -> fmt::Result {
        let counters = &status.counters;
        let (phase, [round, cohort, reports]) = match status.stage {
            StatusStage::Selecting { .. } => ("selecting", [0; 3]),
            StatusStage::Reporting { round, cohort, reports } => {
                ("reporting", [round, cohort as u64, u64::from(reports)])
            }
            StatusStage::Aggregating { round, reports } => ("aggregating", [round, 0, u64::from(reports)]),
            StatusStage::Buffering { round, at_work, reports, .. } => {
                ("buffering", [round, at_work as u64, u64::from(reports)])
            }
            StatusStage::Finished => ("finished", [0; 3]),
        };
        self.labelled("run", "The run that is served", MetricType::Gauge, &[("run", &status.run.to_string(), 1)])?;
        let phases = ["selecting", "reporting", "aggregating", "buffering", "finished"]
            .map(|name| ("phase", name, u64::from(name == phase)));
        self.labelled("phase", "1 for the phase that the run is in", MetricType::Gauge, &phases)?;
        self.gauge("round", "The open round, of several the latest; 0 if none is", round)?;
        self.gauge("round_cohort", "Workers drawn for the open round, or at work in a buffered run", cohort)?;
        self.gauge("round_reports", "Updates accepted into the open round or the buffer", reports)?;
        self.gauge("model_version", "Commits so far", status.version)?;
        self.gauge("workers_enrolled", "Enrolled workers", status.enrolled as u64)?;
        self.gauge("workers_idle", "Workers that are connected and free", status.idle as u64)?;
        self.counter("rounds_committed", "Rounds committed", counters.committed)?;
        self.reasons("rounds_abandoned", "Rounds abandoned", &counters.abandoned)?;
        self.counter("updates_arrived", "Updates that arrived", counters.arrived)?;
        self.counter("updates_accepted", "Updates counted into a round", counters.accepted)?;
        self.counter("updates_discarded", "Updates too late for their round", counters.discarded)?;
        self.reasons("updates_rejected", "Updates not in order", &counters.rejected)?;
        self.reasons("messages_refused", "Other messages that were refused", &counters.refused)?;
        self.counter("workers_suspended", "Workers suspended for what they sent", counters.suspended)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        encode(&mut encoder, MetricType::Gauge, value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        encode(&mut encoder, MetricType::Counter, value)
    }

    fn reasons(&mut self, name: &str, help: &str, reasons: &BTreeMap<String, u64>) -> fmt::Result {
        let values: Vec<_> = reasons.iter().map(|(reason, value)| ("reason", reason.as_str(), *value)).collect();
        self.labelled(name, help, MetricType::Counter, &values)
    }

    fn labelled(&mut self, name: &str, help: &str, kind: MetricType, values: &[(&str, &str, u64)]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for &(label, text, value) in values {
            encode(&mut encoder.encode_family(&[(label, text)])?, kind, value)?;
        }
        Ok(())
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}
