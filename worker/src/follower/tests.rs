//! Stories about one worker's releases, with a coordinator, a folder and an evaluation made of plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use packfed_codec::{Adapter, BaseDigest, LayerSpec, Layout, Seed, State, encode_catch_up};
use packfed_protocol::{Digest, Identity, PayloadId, ReleaseOutcome, ReleaseState, RunId, Version};

use super::*;
use crate::evaluation::Score;

const RUN: RunId = RunId([7; 16]);
const BASE: Digest = Digest([9; 32]);
const NOW: Timestamp = Timestamp(1_000);

pub(crate) fn coordinator() -> Identity {
    Identity::from_seed([5; 32])
}

pub(crate) fn pinned() -> Pinned {
    Pinned { coordinator: coordinator().id(), run: RUN, base: BASE }
}

fn layout() -> Arc<Layout> {
    let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
    Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap())
}

/// The model of a release: its number in the first lane.
pub(crate) fn adapter(number: u64) -> Adapter {
    let mut bytes = State::zero(layout()).to_bytes();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let state = State::from_bytes(layout(), &bytes).unwrap();
    let metrics = BTreeMap::from([("accuracy".to_owned(), 0.5)]);
    Adapter::new(BaseDigest(BASE.0), Seed::from_number(1), state, metrics).unwrap()
}

pub(crate) fn payload(number: u64) -> Payload {
    Payload::new(adapter(number).to_bytes())
}

pub(crate) fn manifest(number: u64) -> Manifest {
    let adapter = adapter(number);
    Manifest {
        number,
        run: RUN,
        base: BASE,
        layout: Digest(adapter.state().layout().digest().0),
        state: Digest(adapter.state().digest().0),
        version: Version(number),
        adapter: payload(number).id(),
        created: NOW,
        notes: String::new(),
        metrics: adapter.metrics().clone(),
    }
}

pub(crate) fn held(number: u64) -> Held {
    Held::of(&manifest(number))
}

fn signed(identity: &Identity, manifest: Manifest) -> Vec<u8> {
    SignedRelease::new(identity, manifest).unwrap().to_bytes()
}

fn target(number: u64) -> Target {
    Target::Release { signed: signed(&coordinator(), manifest(number)), back: false, body: ReleaseBody::Whole }
}

fn back_to(number: u64) -> Target {
    Target::Release { signed: signed(&coordinator(), manifest(number)), back: true, body: ReleaseBody::Whole }
}

/// A follower that runs a release, after an older one, and is connected.
fn running(current: u64, previous: u64) -> Follower {
    let held = |number| (number > 0).then(|| held(number));
    let standing = Standing { current: held(current), previous: held(previous), ..Standing::default() };
    let (mut follower, effects) = Follower::new(pinned(), None, standing);
    assert!(effects.is_empty());
    assert_eq!(say(&mut follower, Event::Connected), [format!("send {}", runs(current))]);
    follower
}

fn runs(number: u64) -> String {
    if number == 0 { "base".into() } else { format!("runs {number}") }
}

fn state(state: &ReleaseState) -> String {
    let tried = state.tried.map(|tried| {
        let outcome = match tried.outcome {
            ReleaseOutcome::Evaluated(found) => format!("evaluated on {}", found.examples),
            ReleaseOutcome::Healthy => "healthy".into(),
            ReleaseOutcome::Failed(failure) => format!("{failure:?}"),
        };
        format!(" tried {} {outcome}", tried.release.number)
    });
    runs(state.runs.map_or(0, |release| release.number)) + &tried.unwrap_or_default()
}

fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Send(Message::ReleaseState(said)) => format!("send {}", state(said)),
        Effect::Send(other) => format!("send {}", other.frame_type()),
        Effect::Fetch { payload, .. } => format!("fetch {}", name(*payload)),
        Effect::Store { signed, source, .. } => {
            let number = signed.unverified().number;
            match source {
                Source::Folder => format!("check {number}"),
                Source::Whole(_) => format!("store {number}"),
                Source::From(over, _) => format!("store {number} over {}", over.number),
            }
        }
        Effect::Evaluate { before, after, examples_max, .. } => {
            format!("evaluate {} beside {} on {examples_max}", after.number, before.map_or(0, |before| before.number))
        }
        Effect::Cancel(_) => "cancel".into(),
        Effect::Save(standing) => {
            let trying =
                standing.trying.map(|of| format!(" trying {} for the {}.", of.held.release.number, of.attempts));
            let previous = standing.previous.map(|held| format!(" after {}", held.release.number));
            let (previous, trying) = (previous.unwrap_or_default(), trying.unwrap_or_default());
            format!("save {}{previous}{trying}", state(&standing.state()))
        }
        Effect::Wake(time) => format!("wake {}", time.since(NOW)),
    }
}

/// A payload by the release whose file it is.
fn name(payload: PayloadId) -> String {
    (1..9).find(|&n| manifest(n).adapter == payload).map_or("a difference".into(), |n| format!("file {n}"))
}

/// Effects in short, to be compared whole; what is to be saved is saved.
fn say(follower: &mut Follower, event: Event) -> Vec<String> {
    let mut said = Vec::new();
    let mut events = vec![event];
    while let Some(event) = events.pop() {
        for effect in follower.handle(event, NOW) {
            said.push(brief(&effect));
            if matches!(effect, Effect::Save(_)) {
                events.push(Event::Saved(Ok(())));
            }
        }
    }
    said
}

fn tell(follower: &mut Follower, target: Target) -> Vec<String> {
    say(follower, Event::Target(target))
}

fn fetched(follower: &mut Follower, number: u64) -> Vec<String> {
    let turn = follower.turn;
    say(follower, Event::Fetched { turn, result: Ok(payload(number)) })
}

fn broken(follower: &mut Follower, gained: u64) -> Vec<String> {
    let turn = follower.turn;
    say(follower, Event::Fetched { turn, result: Err(Broken { gained, why: "payload-gone".into() }) })
}

fn stored(follower: &mut Follower, number: u64) -> Vec<String> {
    let turn = follower.turn;
    say(follower, Event::Stored { turn, result: Ok(held(number)) })
}

fn not_stored(follower: &mut Follower, why: NotStored) -> Vec<String> {
    let turn = follower.turn;
    say(follower, Event::Stored { turn, result: Err(why) })
}

fn scores(before: f64, after: f64) -> Result<Found, String> {
    Ok(Found::HeldOut(vec![[before, after].map(|loss| Score { loss, right: 1.0, ms: 2.0 }); 3]))
}

fn evaluated(follower: &mut Follower, result: Result<Found, String>) -> Vec<String> {
    let turn = follower.turn;
    say(follower, Event::Evaluated { turn, result })
}

/// One that runs 3 after 2 and evaluates 4.
fn evaluating() -> Follower {
    let mut follower = running(3, 2);
    assert_eq!(tell(&mut follower, target(4)), ["fetch file 4"]);
    assert_eq!(fetched(&mut follower, 4), ["store 4"]);
    let said = ["save runs 3 after 2 trying 4 for the 1.", "evaluate 4 beside 3 on 10000"];
    assert_eq!(stored(&mut follower, 4), said);
    follower
}

/// What is said when a target is refused; why is in the standing.
fn refused(follower: &mut Follower, target: Target) -> String {
    let said = tell(follower, target);
    assert!(said.len() == 2 && said[0].starts_with("save ") && said[1].ends_with("Verify"), "{said:?}");
    follower.standing().why.clone().unwrap()
}

#[test]
fn a_release_is_fetched_stored_evaluated_and_then_runs() {
    let mut follower = evaluating();
    let said = ["save runs 4 tried 4 evaluated on 3 after 3", "send runs 4 tried 4 evaluated on 3"];
    assert_eq!(evaluated(&mut follower, scores(0.5, 0.4)), said);
    assert_eq!(follower.standing().previous, Some(held(3)));
    assert!(tell(&mut follower, target(4)).is_empty(), "it runs already");
}

#[test]
fn the_first_release_is_evaluated_beside_the_base_model() {
    let mut follower = running(0, 0);
    tell(&mut follower, target(1));
    fetched(&mut follower, 1);
    let said = ["save base trying 1 for the 1.", "evaluate 1 beside 0 on 10000"];
    assert_eq!(stored(&mut follower, 1), said);
    let healthy = Found::Healthy(Score { loss: 0.3, right: 1.0, ms: 1.0 });
    let said = ["save runs 1 tried 1 healthy", "send runs 1 tried 1 healthy"];
    assert_eq!(evaluated(&mut follower, Ok(healthy)), said);
}

#[test]
fn a_report_claims_no_more_examples_than_the_plan_allows() {
    let mut follower = running(3, 2);
    let layout = manifest(4).layout;
    say(&mut follower, Event::Planned(Planned { layout, examples_max: 40 }));
    tell(&mut follower, target(4));
    fetched(&mut follower, 4);
    assert_eq!(stored(&mut follower, 4)[1], "evaluate 4 beside 3 on 40");
}

#[test]
fn a_difference_is_fetched_instead_of_the_file_and_needs_the_state_that_it_starts_from() {
    let mut follower = running(3, 2);
    let difference = |state| {
        let payload = Payload::new(encode_catch_up(adapter(3).state(), adapter(4).state()));
        let body = ReleaseBody::From { state, payload: payload.id() };
        (payload, Target::Release { signed: signed(&coordinator(), manifest(4)), back: false, body })
    };
    let (payload, target) = difference(manifest(3).state);
    assert_eq!(tell(&mut follower, target), ["fetch a difference"]);
    let turn = follower.turn;
    let said = say(&mut follower, Event::Fetched { turn, result: Ok(payload.clone()) });
    assert_eq!(said, ["store 4 over 3"]);
    let unpacked = unpack(&manifest(4), payload.bytes(), Some(&adapter(3))).unwrap();
    assert_eq!((unpacked.adapter, unpacked.bytes), (adapter(4), adapter(4).to_bytes()), "to the byte");
    let (_, lost) = difference(manifest(1).state);
    let why = refused(&mut running(3, 2), lost);
    let expected = format!("release 4 comes as a difference from state {}, which is not here", manifest(1).state);
    assert_eq!(why, expected);
}

#[test]
fn what_was_fetched_is_refused_where_it_is_not_what_was_signed() {
    let error = |manifest: &Manifest, body: &[u8], over: Option<&Adapter>| {
        unpack(manifest, body, over).unwrap_err().to_string()
    };
    let other = adapter(5).to_bytes();
    assert!(error(&manifest(4), &other, None).starts_with("the adapter of release 4 is "));
    let lie = |change: fn(&mut Manifest)| {
        let mut lie = manifest(4);
        change(&mut lie);
        error(&lie, &adapter(4).to_bytes(), None)
    };
    assert!(lie(|lie| lie.base = Digest([1; 32])).starts_with("the base of release 4 is 0909"));
    assert!(lie(|lie| lie.layout = Digest([1; 32])).starts_with("the layout of release 4 is "));
    assert!(lie(|lie| lie.state = Digest([1; 32])).starts_with("the state of release 4 is "));
    let difference = encode_catch_up(adapter(2).state(), adapter(5).state());
    assert!(error(&manifest(4), &difference, Some(&adapter(2))).starts_with("the state of release 4 is "));
    assert!(error(&manifest(4), &[9], Some(&adapter(2))).starts_with("release 4 is no difference from the state"));
    let with = |change: fn(&mut Manifest)| {
        let mut lie = manifest(4);
        change(&mut lie);
        let difference = encode_catch_up(adapter(2).state(), adapter(4).state());
        error(&lie, &difference, Some(&adapter(2)))
    };
    let found = with(|lie| lie.metrics.clear());
    assert!(found.starts_with("the adapter of release 4 is "), "{found}");
    let mut follower = running(3, 2);
    tell(&mut follower, target(4));
    fetched(&mut follower, 4);
    let refusal = unpack(&manifest(4), &other, None).unwrap_err();
    let said = not_stored(&mut follower, NotStored::Refused(refusal));
    assert_eq!(said, ["save runs 3 tried 4 Verify after 2", "send runs 3 tried 4 Verify"]);
}

#[test]
fn each_claim_that_does_not_hold_is_refused_by_name() {
    let claim = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest(4);
        change(&mut manifest);
        Target::Release { signed: signed(&coordinator(), manifest), back: false, body: ReleaseBody::Whole }
    };
    let mut follower = running(3, 2);
    let stranger = Identity::from_seed([6; 32]);
    let foreign = Target::Release { signed: signed(&stranger, manifest(4)), back: false, body: ReleaseBody::Whole };
    let why = refused(&mut follower, foreign);
    assert_eq!(why, format!("release 4 is not signed by coordinator {}", coordinator().id()));
    let why = refused(&mut running(3, 2), claim(&|manifest| manifest.run = RunId([8; 16])));
    assert!(why.starts_with("release 4 is of run 0808") && why.ends_with(&format!("enrolled in run {RUN}")), "{why}");
    let why = refused(&mut running(3, 2), claim(&|manifest| manifest.base = Digest([8; 32])));
    assert!(why.starts_with("release 4 is for a base model with digest 0808"), "{why}");
    let mut planned = running(3, 2);
    say(&mut planned, Event::Planned(Planned { layout: layout_digest(), examples_max: 40 }));
    let why = refused(&mut planned, claim(&|manifest| manifest.layout = Digest([8; 32])));
    assert_eq!(why, format!("release 4 has layout {}, the run has {}", Digest([8; 32]), layout_digest()));
    let twin = claim(&|manifest| (manifest.number, manifest.notes) = (3, "another".into()));
    assert_eq!(refused(&mut running(3, 2), twin), "release 3 is not newer than release 3, which runs here");
    let why = refused(&mut running(3, 2), claim(&|manifest| manifest.adapter.bytes = u64::MAX));
    assert_eq!(why, format!("release 4 has {} bytes, allowed are {RELEASE_BYTES_MAX}", u64::MAX));
    let mut follower = running(3, 2);
    let nothing = Target::Release { signed: vec![1, 2, 3], back: false, body: ReleaseBody::Whole };
    assert!(tell(&mut follower, nothing).is_empty(), "what has no number cannot be reported");
}

fn layout_digest() -> Digest {
    Digest(layout().digest().0)
}

#[test]
fn an_abort_during_the_download_or_the_evaluation_installs_nothing() {
    let mut follower = running(3, 2);
    tell(&mut follower, target(4));
    let turn = follower.turn;
    assert_eq!(tell(&mut follower, target(3)), ["cancel"], "stay where you are");
    assert!(say(&mut follower, Event::Fetched { turn, result: Ok(payload(4)) }).is_empty());
    let mut follower = evaluating();
    let turn = follower.turn;
    let said = ["cancel", "save runs 3 after 2"];
    assert_eq!(tell(&mut follower, target(3)), said, "and the attempt is forgotten");
    assert!(say(&mut follower, Event::Evaluated { turn, result: scores(0.5, 0.4) }).is_empty());
    assert_eq!(follower.standing().current, Some(held(3)));
    assert_eq!(tell(&mut follower, target(4)), ["fetch file 4"], "undone: it may be tried again");
}

#[test]
fn a_newer_release_takes_the_place_of_one_on_its_way() {
    let mut follower = evaluating();
    assert_eq!(tell(&mut follower, target(5)), ["cancel", "save runs 3 after 2", "fetch file 5"]);
    assert!(tell(&mut follower, target(5)).is_empty(), "it is on its way");
    fetched(&mut follower, 5);
    assert_eq!(stored(&mut follower, 5)[1], "evaluate 5 beside 3 on 10000");
    assert!(tell(&mut follower, target(5)).is_empty());
}

#[test]
fn going_back_needs_no_evaluation_fetches_nothing_that_is_here_and_reports_no_outcome() {
    let mut follower = evaluating();
    evaluated(&mut follower, scores(0.5, 0.4));
    assert_eq!(tell(&mut follower, back_to(3)), ["check 3"]);
    let said = ["save runs 3 tried 4 evaluated on 3", "send runs 3 tried 4 evaluated on 3"];
    assert_eq!(stored(&mut follower, 3), said, "what was left is not kept as the one before");
    assert_eq!(tell(&mut follower, back_to(1)), ["fetch file 1"]);
    fetched(&mut follower, 1);
    assert_eq!(stored(&mut follower, 1)[1], "send runs 1 tried 4 evaluated on 3");
    let said = ["save base tried 4 evaluated on 3", "send base tried 4 evaluated on 3"];
    assert_eq!(tell(&mut follower, Target::Base), said);
    assert!(tell(&mut follower, Target::Base).is_empty());
}

#[test]
fn a_worker_that_goes_back_further_keeps_an_older_release_as_the_one_before() {
    let standing = Standing { current: Some(held(5)), previous: Some(held(2)), ..Standing::default() };
    let (mut follower, _) = Follower::new(pinned(), None, standing);
    say(&mut follower, Event::Connected);
    tell(&mut follower, back_to(4));
    fetched(&mut follower, 4);
    assert_eq!(stored(&mut follower, 4), ["save runs 4 after 2", "send runs 4"]);
}

#[test]
fn an_older_release_that_was_told_before_a_swap_was_known_is_not_taken_and_has_not_failed() {
    let mut follower = running(3, 2);
    assert!(tell(&mut follower, target(2)).is_empty());
    assert_eq!(follower.standing().tried, None);
    assert_eq!(tell(&mut follower, back_to(2)), ["check 2"], "the way back is open");
    assert_eq!(tell(&mut follower, target(1)), ["cancel"]);
    assert_eq!(follower.standing().current, Some(held(3)));
}

#[test]
fn back_means_nothing_to_a_worker_that_runs_something_older() {
    let mut follower = running(0, 0);
    tell(&mut follower, back_to(2));
    fetched(&mut follower, 2);
    assert_eq!(stored(&mut follower, 2)[1], "evaluate 2 beside 0 on 10000");
}

#[test]
fn a_release_that_is_damaged_here_is_fetched_anew() {
    let mut follower = running(3, 2);
    assert_eq!(tell(&mut follower, back_to(2)), ["check 2"]);
    assert_eq!(not_stored(&mut follower, NotStored::Missing("its digest is wrong".into())), ["fetch file 2"]);
    assert_eq!(fetched(&mut follower, 2), ["store 2"]);
}

#[test]
fn a_download_that_brings_nothing_is_asked_for_again_and_then_given_up() {
    let mut follower = running(3, 2);
    tell(&mut follower, target(4));
    for (n, wake) in ["wake 1000", "wake 2000", "wake 4000", "wake 8000"].into_iter().enumerate() {
        assert_eq!(broken(&mut follower, 0), [wake]);
        let due = NOW.plus(1_000 << n);
        assert_eq!(say(&mut follower, Event::Tick), [wake], "not yet");
        let asked: Vec<String> = follower.handle(Event::Tick, due).iter().map(brief).collect();
        assert_eq!(asked, ["send runs 3"], "the coordinator offers again");
        assert_eq!(tell(&mut follower, target(4)), ["fetch file 4"]);
    }
    let said = ["save runs 3 tried 4 Download after 2", "send runs 3 tried 4 Download"];
    assert_eq!(broken(&mut follower, 0), said);
    assert!(follower.standing().why.as_ref().unwrap().ends_with("the last one: payload-gone"));
    assert!(tell(&mut follower, target(4)).is_empty(), "it is not tried again");
}

#[test]
fn a_download_that_gets_on_is_never_given_up() {
    let mut follower = running(3, 2);
    tell(&mut follower, target(4));
    for n in 0..20 {
        say(&mut follower, Event::Disconnected);
        broken(&mut follower, n % 2);
        assert_eq!(say(&mut follower, Event::Connected), ["send runs 3"]);
        assert_eq!(tell(&mut follower, target(4)), ["fetch file 4"]);
    }
}

#[test]
fn leaving_because_it_was_sent_away_is_no_failure_of_the_download() {
    let mut follower = running(3, 2);
    tell(&mut follower, target(4));
    for _ in 0..20 {
        say(&mut follower, Event::Left);
        assert_eq!(broken(&mut follower, 0), ["wake 1000"]);
        assert_eq!(say(&mut follower, Event::Connected), ["send runs 3"]);
        assert_eq!(tell(&mut follower, target(4)), ["fetch file 4"]);
    }
}

#[test]
fn a_release_that_is_not_healthy_never_runs() {
    let said = ["save runs 3 tried 4 Crash after 2", "send runs 3 tried 4 Crash"];
    assert_eq!(evaluated(&mut evaluating(), scores(0.5, f64::NAN)), said);
    let mut follower = evaluating();
    assert_eq!(evaluated(&mut follower, Err("the evaluation panicked".into())), said);
    assert_eq!(follower.standing().why.as_deref(), Some("the evaluation panicked"));
    assert!(tell(&mut follower, target(4)).is_empty(), "nor is it tried again");
    let mut strict = evaluating();
    strict.loss_increase_max = Some(0.1);
    assert_eq!(evaluated(&mut strict, scores(0.5, 0.7)), said);
    let mut lenient = evaluating();
    assert_eq!(evaluated(&mut lenient, scores(0.5, 0.7))[1], "send runs 4 tried 4 evaluated on 3");
}

#[test]
fn a_release_that_ends_three_processes_is_not_tried_a_fourth_time() {
    let mut standing = evaluating().standing().clone();
    for attempt in 2..=3 {
        let (mut follower, effects) = Follower::new(pinned(), None, standing);
        assert!(effects.is_empty(), "it waits until it is told to");
        say(&mut follower, Event::Connected);
        assert_eq!(tell(&mut follower, target(4)), ["check 4"], "it is here already");
        assert_eq!(stored(&mut follower, 4)[0], format!("save runs 3 after 2 trying 4 for the {attempt}."));
        standing = follower.standing().clone();
    }
    let (mut follower, effects) = Follower::new(pinned(), None, standing);
    assert_eq!(effects.iter().map(brief).collect::<Vec<_>>(), ["save runs 3 tried 4 Crash after 2"]);
    say(&mut follower, Event::Saved(Ok(())));
    assert_eq!(say(&mut follower, Event::Connected), ["send runs 3 tried 4 Crash"]);
    assert_eq!(follower.standing().why.as_deref(), Some("3 processes in a row ended while it was evaluated"));
}

#[test]
fn an_evaluation_that_was_stopped_on_purpose_does_not_count() {
    let mut follower = evaluating();
    let turn = follower.turn;
    assert_eq!(say(&mut follower, Event::Stopping), ["cancel", "save runs 3 after 2 trying 4 for the 0."]);
    let late = Event::Evaluated { turn, result: Err("nobody wants it".into()) };
    assert!(say(&mut follower, late).is_empty());
    assert!(say(&mut running(3, 2), Event::Stopping).is_empty());
}

#[test]
fn what_cannot_be_written_down_does_not_run_and_is_written_again_later() {
    let mut follower = evaluating();
    let turn = follower.turn;
    let effects = follower.handle(Event::Evaluated { turn, result: scores(0.5, 0.4) }, NOW);
    assert!(matches!(effects[..], [Effect::Save(_)]));
    let full = Event::Saved(Err("no space left on device".into()));
    assert_eq!(say(&mut follower, full), [format!("wake {SAVE_AGAIN_MS}")]);
    assert_eq!(follower.standing().current, Some(held(3)));
    assert_eq!(say(&mut follower, Event::Connected), ["send runs 3"], "nothing else is claimed");
    let said = ["save runs 4 tried 4 evaluated on 3 after 3", "send runs 4 tried 4 evaluated on 3"];
    assert_eq!(say(&mut follower, Event::Tick), said);
}

#[test]
fn a_swap_without_a_connection_is_told_with_the_next() {
    let mut follower = evaluating();
    say(&mut follower, Event::Disconnected);
    assert_eq!(evaluated(&mut follower, scores(0.5, 0.4)), ["save runs 4 tried 4 evaluated on 3 after 3"]);
    assert_eq!(say(&mut follower, Event::Connected), ["send runs 4 tried 4 evaluated on 3"]);
}
