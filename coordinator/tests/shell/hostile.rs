//! Peers that mean harm, for as long as a round of honest workers takes: none of them stops it. Each test
//! names the bound that holds its attack.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use packfed_coordinator::config::CoordinatorFile;
use packfed_protocol::quic::{client, write_message};
use packfed_protocol::{Fetch, FrameHeader, FrameType, Identity, Message};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::relay::Relay;
use crate::scripted::{Worker, fleet, leave, round};
use crate::served::{Serving, coordinator, file, in_time, status};

/// Honest workers of a run; more keys are admitted.
const HONEST: u8 = 3;
/// A key that is admitted and means harm.
const TRAITOR: u8 = HONEST + 1;

/// A run of the honest workers alone, that a few others may take part in.
fn attacked(change: impl FnOnce(&mut CoordinatorFile)) -> (CoordinatorFile, Serving) {
    let mut file = file(HONEST.into(), 2);
    change(&mut file);
    let serving = Serving::start(&file, HONEST + 8);
    (file, serving)
}

/// Two honest rounds from the first handshake to the last verdict, while the attack goes on; then its
/// report.
async fn prevails(serving: Serving, attack: impl Future<Output = ()>) -> Value {
    let honest = async {
        let mut workers = fleet(HONEST, &serving).await;
        round(&mut workers).await;
        round(&mut workers).await;
        leave(workers).await;
    };
    tokio::select! {
        () = honest => {}
        () = attack => panic!("an attack does not end by itself"),
    }
    let outcome = serving.outcome().await.unwrap();
    assert!(outcome.finished);
    let report = serde_json::to_value(outcome.report).unwrap();
    assert_eq!(report["counters"]["accepted"], 2 * u64::from(HONEST));
    report
}

/// Waits until an attack has got so far.
async fn at_least(counter: &AtomicU64, n: u64) {
    while counter.load(Ordering::Relaxed) < n {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn nobody(n: u64) -> Identity {
    let mut seed = [0xee; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    Identity::from_seed(seed)
}

/// First packets of handshakes that will never be gone on with.
async fn first_packets(n: u64) -> Vec<Vec<u8>> {
    let hole = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = hole.local_addr().unwrap();
    let mut connecting = JoinSet::new();
    for n in 0..n {
        connecting.spawn(async move {
            let _ = client(&nobody(n)).unwrap().connect(address, &coordinator().id()).await;
        });
    }
    let mut packets = std::collections::BTreeMap::new();
    while (packets.len() as u64) < n {
        let mut packet = vec![0; 2048];
        let (bytes, from) = hole.recv_from(&mut packet).await.unwrap();
        packet.truncate(bytes);
        packets.entry(from).or_insert(packet);
    }
    packets.into_values().collect()
}

/// Bound: `handshakes_max`, half of it for addresses that are not proven, and `handshake_timeout_ms`.
#[tokio::test]
async fn handshakes_that_are_never_finished() {
    in_time(async {
        let (_, serving) = attacked(|file| {
            (file.limits.handshakes_max, file.limits.handshake_timeout_ms) = (16, 60_000);
        });
        let packets = first_packets(64).await;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        // Every place that they can have is theirs before the first honest worker comes.
        for packet in &packets {
            socket.send_to(packet, serving.address).await.unwrap();
        }
        let address = serving.address;
        let attack = async {
            for packet in packets.iter().cycle() {
                socket.send_to(packet, address).await.unwrap();
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        prevails(serving, attack).await;
    })
    .await;
}

/// Bound: `handshakes_per_second_per_address` and `strangers_max`.
#[tokio::test]
async fn a_flood_of_handshakes_with_fresh_keys() {
    in_time(async {
        let (_, serving) = attacked(|file| {
            let limits = &mut file.limits;
            (limits.handshakes_per_second, limits.handshakes_per_second_per_address) = (60, 20);
            (limits.strangers_max, limits.connections_max) = (4, 64);
        });
        // Elsewhere than the honest workers, as far as loopback goes.
        let relay = Relay::from(Ipv4Addr::new(127, 0, 0, 2), serving.address).await;
        let (address, sent_away) = (relay.address, Arc::new(AtomicU64::new(0)));
        let mut flood = JoinSet::new();
        for lane in 0..16 {
            let sent_away = Arc::clone(&sent_away);
            flood.spawn(async move {
                for n in 0.. {
                    let (client, pinned) = (client(&nobody(lane << 32 | n)).unwrap(), coordinator().id());
                    let connect = client.connect(address, &pinned);
                    // Nobody is told that it has to wait; so it tries again.
                    let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(200), connect).await else {
                        continue;
                    };
                    let sent_away = Arc::clone(&sent_away);
                    tokio::spawn(async move {
                        let why = connection.closed().await.to_string();
                        sent_away.fetch_add(u64::from(why.contains("too many strangers")), Ordering::Relaxed);
                        drop(client);
                    });
                }
            });
        }
        at_least(&sent_away, 8).await;
        prevails(serving, std::future::pending()).await;
    })
    .await;
}

/// Opens streams as fast as it can, with `bytes` on each, over as many connections as that costs.
async fn tiny_streams(address: SocketAddr, n: u8, bytes: &'static [u8], opened: &AtomicU64) {
    let identity = crate::served::worker(n);
    loop {
        let client = client(&identity).unwrap();
        let Ok(connection) = client.connect(address, &coordinator().id()).await else { continue };
        while let Ok((mut send, _)) = connection.open_bi().await {
            let _ = send.write_all(bytes).await;
            let _ = send.finish();
            opened.fetch_add(1, Ordering::Relaxed);
        }
        client.close();
    }
}

async fn tiny_streams_are_borne(streams: u64) {
    let (_, serving) = attacked(|file| {
        file.limits.rejections_max = 500;
        // Whoever is suspended is told nothing else.
        file.strikes.suspend_at = 0;
    });
    let opened = Arc::new(AtomicU64::new(0));
    let mut attack = JoinSet::new();
    for (n, bytes) in [(TRAITOR, &b""[..]), (TRAITOR + 1, &b"P"[..]), (TRAITOR + 2, &[0; 64][..])] {
        let (address, opened) = (serving.address, Arc::clone(&opened));
        attack.spawn(async move { tiny_streams(address, n, bytes, &opened).await });
    }
    at_least(&opened, streams).await;
    // Streams go with their connection, which ends with its first one: that some were read may take a while.
    let are_told = |status: &Value| {
        ["truncated", "malformed"].iter().all(|code| status["counters"]["rejected"][code] != Value::Null)
    };
    while !are_told(&status(serving.address).await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    prevails(serving, std::future::pending()).await;
}

/// Bound: `rejections_max` a connection, and two streams of a connection at once.
#[tokio::test]
async fn streams_that_say_nothing() {
    in_time(tiny_streams_are_borne(2_000)).await;
}

#[tokio::test]
#[ignore = "a million streams take minutes"]
async fn a_million_streams_that_say_nothing() {
    tiny_streams_are_borne(1_000_000).await;
}

/// Bound: a frame is judged by its first eight bytes, `rejections_max`, and QUIC's own for what is no packet.
#[tokio::test]
async fn garbage_in_frames_streams_and_packets() {
    in_time(async {
        let (_, serving) = attacked(|_| ());
        let (address, said) = (serving.address, Arc::new(AtomicU64::new(0)));
        let mut attack = JoinSet::new();
        for n in TRAITOR..TRAITOR + 3 {
            let said = Arc::clone(&said);
            attack.spawn(async move { garbage_streams(address, n, &said).await });
        }
        attack.spawn(async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut noise = Noise(1);
            loop {
                socket.send_to(&noise.bytes(), address).await.unwrap();
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        });
        at_least(&said, 200).await;
        prevails(serving, std::future::pending()).await;
    })
    .await;
}

/// Bytes that follow from a number (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % 1200;
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A frame with a header that may stand, and a body that does not.
    fn frame(&mut self) -> Vec<u8> {
        let body = self.bytes();
        let types = FrameType::ALL;
        let frame_type = types[usize::try_from(self.next()).unwrap() % types.len()];
        let header = FrameHeader { frame_type, length: u32::try_from(body.len()).unwrap() };
        [&header.encode()[..], &body].concat()
    }
}

async fn garbage_streams(address: SocketAddr, n: u8, said: &AtomicU64) {
    let mut noise = Noise(n.into());
    loop {
        let client = client(&crate::served::worker(n)).unwrap();
        let Ok(connection) = client.connect(address, &coordinator().id()).await else { continue };
        while let Ok((mut send, _recv)) = connection.open_bi().await {
            let bytes = if noise.next().is_multiple_of(2) { noise.bytes() } else { noise.frame() };
            let _ = send.write_all(&bytes).await;
            let _ = send.finish();
            said.fetch_add(1, Ordering::Relaxed);
        }
        client.close();
    }
}

/// Bound: `updates_max` places, each for `update_timeout_ms` and what `bytes_per_second_min` allows.
#[tokio::test]
async fn updates_that_trickle_in_every_place() {
    in_time(async {
        let (_, serving) = attacked(|file| {
            let limits = &mut file.limits;
            (limits.updates_max, limits.update_timeout_ms, limits.bytes_per_second_min) = (2, 500, 1 << 20);
            (file.selection.goal, file.selection.min) = (u32::from(HONEST) + 4, u32::from(HONEST) + 4);
            file.reporting.over_selection = 4;
        });
        let (address, plan) = (serving.address, Arc::clone(&serving.config.plan));
        let mut attack = JoinSet::new();
        let held = Arc::new(AtomicU64::new(0));
        for n in TRAITOR..TRAITOR + 4 {
            let (plan, held) = (Arc::clone(&plan), Arc::clone(&held));
            attack.spawn(async move {
                let mut traitor = Worker::connect_to(n, address, &plan).await;
                traitor.check_in().await;
                let assignment = traitor.assignment().await;
                let update = traitor.update(&assignment);
                loop {
                    if let Some(Ok((mut send, _recv, resume))) = traitor.offer(&update).await {
                        held.fetch_add(1, Ordering::Relaxed);
                        let offset = usize::try_from(resume.offset).unwrap();
                        let next = update.payload.len().min(offset + 1);
                        let _ = send.write_all(&update.payload[offset..next]).await;
                        traitor.closed().await;
                    }
                    traitor.reconnect_to(address).await;
                }
            });
        }
        let honest = async {
            let mut workers = fleet(HONEST, &serving).await;
            let mut assignments = Vec::new();
            for worker in &mut workers {
                assignments.push(worker.assignment().await);
            }
            at_least(&held, 2).await;
            for (worker, assignment) in workers.iter_mut().zip(&assignments) {
                worker.accepted(&worker.update(assignment)).await;
            }
            workers
        };
        let _workers = honest.await;
        assert_eq!(status(serving.address).await["version"], 1);
        serving.stopped().await.unwrap();
    })
    .await;
}

/// Bound: a message every 100 ms on the control stream, one body for all who ask, `queue_max`.
#[tokio::test]
async fn a_valid_key_that_asks_for_everything_all_the_time() {
    in_time(async {
        // Traitors check in as well and are drawn; honest workers do not wait for what they never send.
        let (_, serving) = attacked(|file| {
            (file.selection.goal, file.selection.min) = (u32::from(HONEST) + 4, u32::from(HONEST) + 4);
            file.reporting.over_selection = 4;
        });
        let (address, plan) = (serving.address, Arc::clone(&serving.config.plan));
        let run = plan.raw().run;
        let asked = Arc::new(AtomicU64::new(0));
        let mut attack = JoinSet::new();
        for n in TRAITOR..TRAITOR + 4 {
            let (plan, asked) = (Arc::clone(&plan), Arc::clone(&asked));
            attack.spawn(async move {
                loop {
                    let traitor = Worker::connect_to(n, address, &plan).await;
                    ask_for_everything(traitor, run, &asked).await;
                }
            });
        }
        at_least(&asked, 50).await;
        let honest = async {
            let mut workers = fleet(HONEST, &serving).await;
            for worker in &mut workers {
                let assignment = worker.assignment().await;
                worker.accepted(&worker.update(&assignment)).await;
            }
            workers
        };
        let _workers = honest.await;
        assert_eq!(status(serving.address).await["version"], 1);
        serving.stopped().await.unwrap();
    })
    .await;
}

/// Check-ins without end, of which nothing is read, and fetches of what is not there.
async fn ask_for_everything(mut traitor: Worker, run: packfed_protocol::RunId, asked: &AtomicU64) {
    let check_in = Message::CheckIn(packfed_protocol::CheckIn {
        run,
        version: packfed_protocol::Version(9),
        digest: packfed_protocol::Digest([9; 32]),
        examples: u32::MAX,
        conditions: packfed_protocol::Conditions::ALL,
        planned: false,
    });
    let fetch = Message::Fetch(Fetch { payload: packfed_protocol::Digest([9; 32]), offset: u64::MAX });
    loop {
        if traitor.try_say(&check_in).await.is_err() {
            return;
        }
        let Ok((mut send, _recv)) = traitor.connection.open_bi().await else { return };
        if write_message(&mut send, &fetch).await.is_err() {
            return;
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
}
