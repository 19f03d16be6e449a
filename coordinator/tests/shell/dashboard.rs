//! What the dashboard of a live server shows, and that there is none unless it is asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use packfed_coordinator::config::{CoordinatorFile, DashboardTable};
use packfed_coordinator::picture::{Picture, RoundOutcome, StageName, Workers};

use crate::metrics::get;
use crate::scripted::{fleet, leave, round};
use crate::served::{Serving, file, in_time};

/// The picture on show, once it is as it should be: it may be half a second late.
async fn picture(serving: &Serving, is: fn(&Picture) -> bool) -> Picture {
    loop {
        let (head, body) = get(serving.dashboard.unwrap(), "/picture.json").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let picture: Picture = serde_json::from_str(&body).unwrap();
        if is(&picture) {
            return picture;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_live_run_is_in_the_picture_round_by_round() {
    in_time(async {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let serving = Serving::start(&CoordinatorFile { dashboard: Some(DashboardTable { listen }), ..file(3, 2) }, 3);
        let before = picture(&serving, |_| true).await;
        assert_eq!((before.stage.name, before.version, before.rounds), (StageName::Selecting, 0, 2));

        let mut workers = fleet(3, &serving).await;
        let open = picture(&serving, |picture| picture.stage.name == StageName::Reporting).await;
        assert_eq!((open.stage.round, open.stage.cohort, open.stage.reports), (Some(1), Some(3), Some(0)));
        round(&mut workers).await;
        round(&mut workers).await;
        let after = picture(&serving, |picture| picture.stage.name == StageName::Finished).await;
        assert_eq!(
            after.workers,
            Workers { enrolled: 3, connected: 3, idle: after.workers.idle, ..Workers::default() }
        );
        let rounds: Vec<_> = after.history.iter().map(|past| (past.round, past.outcome, past.reports)).collect();
        assert_eq!(rounds, [(1, RoundOutcome::Committed, 3), (2, RoundOutcome::Committed, 3)]);
        // Two layers of 8 by 8 and 8 by 4, six updates up and six models down.
        assert_eq!((after.counters.accepted, after.bytes.dense), (6, 12 * 4 * (64 + 32)));
        assert_eq!(after.history.last().and_then(|past| past.digest), Some(after.digest));
        leave(workers).await;
        assert!(serving.outcome().await.unwrap().finished);
    })
    .await;
}

#[tokio::test]
async fn there_is_no_dashboard_unless_it_is_asked_for() {
    in_time(async {
        let serving = Serving::start(&file(1, 1), 1);
        assert_eq!(serving.dashboard, None);
        serving.stopped().await.unwrap();
    })
    .await;
}
