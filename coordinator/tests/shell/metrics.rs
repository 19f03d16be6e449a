//! What a scrape of a live server says, and that it is what `METRICS.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use packfed_coordinator::config::{CoordinatorFile, MetricsTable};
use packfed_protocol::{Message, RejectionCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::scripted::{fleet, leave, round};
use crate::served::{Serving, file, in_time};

const DOCUMENT: &str = include_str!("../../METRICS.md");

fn watched(workers: u32, rounds: u64) -> CoordinatorFile {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    CoordinatorFile { metrics: Some(MetricsTable { listen }), ..file(workers, rounds) }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// A scrape: names with their types, and every sample.
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(serving: &Serving) -> Self {
        let (head, body) = get(serving.metrics.unwrap(), "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        let mut scrape = Self { types: BTreeMap::new(), samples: BTreeMap::new() };
        for line in body.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                scrape.samples.insert(sample.to_owned(), value.parse().unwrap());
            }
        }
        scrape
    }

    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {:?}", self.samples.keys()))
    }

    /// Of all labels.
    fn sum(&self, name: &str) -> f64 {
        let labelled = format!("{name}{{");
        self.samples.iter().filter(|(sample, _)| sample.starts_with(&labelled)).map(|(_, value)| value).sum()
    }

    fn check_sums(&self) {
        let [arrived, accepted, discarded] =
            ["arrived", "accepted", "discarded"].map(|what| self.value(&format!("packfed_updates_{what}_total")));
        assert_eq!(arrived, accepted + discarded + self.sum("packfed_updates_rejected_total"));
        assert_eq!(self.sum("packfed_phase"), 1.0);
    }
}

/// The table of the document.
fn documented() -> BTreeMap<String, String> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.strip_suffix('`')?.to_owned(), cells.next()?.to_owned()))
    };
    DOCUMENT.lines().filter_map(row).collect()
}

#[tokio::test]
async fn a_scrape_says_what_the_document_says_and_adds_up() {
    in_time(async {
        let serving = Serving::start(&watched(3, 2), 3);
        let before = Scrape::of(&serving).await;
        let mut names: BTreeSet<_> = before.types.clone().into_iter().collect();
        let mut expected: BTreeSet<_> = documented().into_iter().collect();
        // What a store in memory does not have, and what only Linux says.
        let aside = |(name, _): &(String, String)| {
            name == "packfed_store_file_bytes" || (!cfg!(target_os = "linux") && name.starts_with("packfed_process"))
        };
        expected.retain(|row| !aside(row));
        names.retain(|row| !aside(row));
        assert_eq!(names, expected);
        before.check_sums();
        assert_eq!(before.value("packfed_updates_arrived_total"), 0.0);
        assert_eq!(before.value("packfed_phase{phase=\"selecting\"}"), 1.0);

        let mut workers = fleet(3, &serving).await;
        let assignment = workers[0].assignment().await;
        let honest = workers[0].update(&assignment);
        workers[0].accepted(&honest).await;
        let again = Message::Update(honest.clone()).encode();
        assert_eq!(workers[0].rejected(&again).await, RejectionCode::Duplicate);
        assert_eq!(workers[0].rejected(&again[..again.len() - 1]).await, RejectionCode::Truncated);
        let during = Scrape::of(&serving).await;
        during.check_sums();
        assert_eq!(during.value("packfed_updates_arrived_total"), 3.0);
        assert_eq!(during.value("packfed_updates_rejected_total{reason=\"duplicate\"}"), 1.0);
        assert_eq!(during.value("packfed_updates_rejected_total{reason=\"truncated\"}"), 1.0);
        let round_now = ["packfed_round", "packfed_round_cohort", "packfed_round_reports"];
        assert_eq!(round_now.map(|name| during.value(name)), [1.0, 3.0, 1.0]);
        assert_eq!(during.value("packfed_workers_connected"), 3.0);
        assert_eq!(during.value("packfed_journal_bytes_total"), again.len() as f64);
        assert_eq!(during.value("packfed_upload_to_verdict_seconds_count"), 3.0);

        workers[0].check_in().await;
        round(&mut workers[1..]).await;
        round(&mut workers).await;
        let after = Scrape::of(&serving).await;
        after.check_sums();
        assert_eq!(after.value("packfed_updates_accepted_total"), 6.0);
        assert_eq!(after.value("packfed_rounds_committed_total"), 2.0);
        assert_eq!(after.value("packfed_model_version"), 2.0);
        assert_eq!(after.value("packfed_phase{phase=\"finished\"}"), 1.0);
        assert_eq!(after.value("packfed_connections"), 3.0);
        // Three workers seen, two openings, six updates, two commits and two rounds that are over, in fewer flushes.
        assert_eq!(after.value("packfed_journal_writes_total"), 15.0);
        assert!(after.value("packfed_journal_write_seconds_count") <= 15.0);
        assert!(after.value("packfed_received_bytes_total") > 8.0 * again.len() as f64);
        leave(workers).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn nothing_but_metrics_is_served_and_only_if_asked_for() {
    in_time(async {
        let serving = Serving::start(&watched(1, 1), 1);
        let (head, _) = get(serving.metrics.unwrap(), "/").await;
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
        serving.stopped().await.unwrap();
        let unwatched = Serving::start(&file(1, 1), 1);
        assert_eq!(unwatched.metrics, None);
        unwatched.stopped().await.unwrap();
    })
    .await;
}
