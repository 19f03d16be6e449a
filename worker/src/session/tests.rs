//! Stories about one worker, with a coordinator made of plain values.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, Profile, State, StepWords, encode_catch_up, encode_step};
use packfed_protocol::{CatchUp, LaneScales, LayerPlan, Payload, Plan, Refused};

use super::*;

const RUN: RunId = RunId([7; 16]);
const BASE: Digest = Digest([9; 32]);
const NOW: Timestamp = Timestamp(1_000);

fn layout() -> Arc<Layout> {
    let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
    Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap())
}

fn plan() -> Message {
    let layer =
        LayerPlan { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4, rate_exponent: 0 };
    Message::Plan(Plan {
        run: RUN,
        seed: *Seed::from_number(1).bytes(),
        base: BASE,
        layout: Digest(layout().digest().0),
        profile: Profile::Plain.number(),
        rounds: 5,
        examples_max: 40,
        layers: vec![layer],
    })
}

fn step(n: i32) -> StepWords {
    let words = Profile::Plain.pack(&[n; 14]).repeat(4);
    StepWords { turn: 0, scales: vec![Scales { wave: -10, residual: -4 }], words }
}

/// The head after `version` steps.
fn head(version: u64) -> State {
    let mut state = State::zero(layout());
    for n in 0..version {
        state.apply(Profile::Plain, &step(i32::try_from(n).unwrap() + 1)).unwrap();
    }
    state
}

fn digest(version: u64) -> Digest {
    Digest(head(version).digest().0)
}

fn catch_up(from: u64, to: u64) -> Message {
    let body = encode_catch_up(&head(from), &head(to));
    Message::CatchUp(CatchUp { from: Version(from), to: Version(to), digest: digest(to), body: Payload::new(body) })
}

fn assignment(round: u64, base: u64) -> Message {
    Message::Assignment(Assignment {
        round: Round(round),
        base: Version(base),
        turn: 0,
        steps: 3,
        batch: 2,
        learning_rate: 0.1,
        optimizer: packfed_protocol::LocalOptimizer::Sgd { momentum: 0.5 },
        weight_decay: 0.25,
        warmup: 2,
        clip_norm: 0.0,
        proximal: 0.5,
        deadline_ms: 500,
        scales: vec![LaneScales { wave: -12, residual: -6 }],
    })
}

fn accepted(round: u64) -> Event {
    Event::Verdict(Verdict { round: Round(round), outcome: Outcome::Accepted })
}

fn trained(round: u64) -> Event {
    let delta = (0..4 * 14u16).map(|n| f32::from(n) / 100.0 - 0.2).collect();
    Event::Trained { round: Round(round), result: Ok(Trained { delta, loss: 0.5 }) }
}

fn session() -> Session {
    let (session, effects) = Session::new(Identity::from_seed([3; 32]), RUN, BASE, 50, NOW);
    assert!(matches!(effects[..], [Effect::Connect(NOW)]));
    session
}

/// Effects in short, to be compared whole.
fn say(session: &mut Session, event: Event) -> Vec<String> {
    let brief = |effect: &Effect| match effect {
        Effect::Connect(time) => format!("connect {}", time.since(NOW)),
        Effect::Send(Message::CheckIn(c)) => {
            format!("check-in {}{}", c.version.0, if c.planned { "" } else { " no plan" })
        }
        Effect::Send(other) => format!("send {}", other.frame_type()),
        Effect::Train { round, job } => format!("train {} from {:?}", round.0, job.state.digest()),
        Effect::RoundOver => "round over".into(),
        Effect::Upload(_) => "upload".into(),
        Effect::Wake(time) => format!("wake {}", time.since(NOW)),
        Effect::Stop(Ending::Finished { version, .. }) => format!("finished {}", version.0),
        Effect::Stop(Ending::Failed(error)) => format!("failed: {error}"),
    };
    session.handle(event, NOW).iter().map(brief).collect()
}

fn hear(session: &mut Session, message: Message) -> Vec<String> {
    say(session, Event::Message(Box::new(message)))
}

/// A session that trains round 1 from version 2.
fn training() -> Session {
    let mut session = session();
    assert_eq!(say(&mut session, Event::Connected), ["check-in 0 no plan"]);
    assert!(hear(&mut session, plan()).is_empty());
    assert!(hear(&mut session, catch_up(0, 2)).is_empty());
    let train = format!("train 1 from {:?}", head(2).digest());
    assert_eq!(hear(&mut session, assignment(1, 2)), [train]);
    session
}

fn upload(session: &mut Session, event: Event) -> Signed {
    match session.handle(event, NOW).as_slice() {
        [Effect::Upload(message)] => match &**message {
            Message::Update(signed) => signed.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_round_goes_from_check_in_to_the_next_check_in() {
    let mut session = training();
    let update = upload(&mut session, trained(1)).verify(&session.id()).unwrap();
    let header = update.header();
    assert_eq!((header.round, header.base, header.words), (Round(1), Version(2), 4));
    assert_eq!(header.examples, 40, "held to the plan's cap");
    assert_eq!(say(&mut session, accepted(1)), ["round over", "check-in 2"]);
    assert!(hear(&mut session, catch_up(2, 3)).is_empty());
    assert_eq!(session.replica().unwrap().digest(), digest(3));
}

#[test]
fn the_same_round_makes_the_same_update_and_another_worker_another() {
    let update = |seed: [u8; 32]| {
        let (mut session, _) = Session::new(Identity::from_seed(seed), RUN, BASE, 50, NOW);
        for event in [Event::Connected, Event::Message(Box::new(plan())), Event::Message(Box::new(assignment(1, 0)))] {
            session.handle(event, NOW);
        }
        upload(&mut session, trained(1))
    };
    assert_eq!(update([3; 32]), update([3; 32]));
    assert_ne!(update([3; 32]).payload, update([4; 32]).payload, "rounding is each worker's own");
}

#[test]
fn a_job_trains_as_the_assignment_says() {
    let job = |optimizer, clip_norm| {
        let mut session = session();
        hear(&mut session, plan());
        let Message::Assignment(sent) = assignment(1, 0) else { unreachable!() };
        let sent = Message::Assignment(Assignment { optimizer, clip_norm, ..sent });
        match session.handle(Event::Message(Box::new(sent)), NOW).as_slice() {
            [Effect::Train { job, .. }] => job.local,
            other => panic!("{other:?}"),
        }
    };
    let optimizer = LocalOptimizer::Sgd { momentum: 0.5, weight_decay: 0.25 };
    let adam = LocalSteps { proximal: 0.5, ..LocalSteps::adam(3, 2, 0.1) };
    let sent = packfed_protocol::LocalOptimizer::Sgd { momentum: 0.5 };
    assert_eq!(job(sent, 0.0), LocalSteps { optimizer, warmup: 2, ..adam });
    let optimizer = LocalOptimizer::AdamW { weight_decay: 0.25 };
    let expected = LocalSteps { optimizer, warmup: 2, clip_norm: Some(1.5), ..adam };
    assert_eq!(job(packfed_protocol::LocalOptimizer::AdamW, 1.5), expected);
}

#[test]
fn one_missed_step_may_come_as_words() {
    let mut session = training();
    let body = Payload::new(encode_step(&step(3)));
    let message = Message::CatchUp(CatchUp { from: Version(2), to: Version(3), digest: digest(3), body });
    assert!(hear(&mut session, message).is_empty());
    assert_eq!(session.replica().unwrap().version(), Version(3));
}

#[test]
fn an_update_that_was_not_delivered_is_sent_again() {
    let mut session = training();
    let first = upload(&mut session, trained(1));
    let delay = say(&mut session, Event::Disconnected);
    assert!(delay[0].starts_with("connect "), "{delay:?}");
    assert_eq!(upload(&mut session, Event::Connected), first);
    let duplicate = Rejection::new(RejectionCode::Duplicate, "again");
    let verdict = Verdict { round: Round(1), outcome: Outcome::Rejected(duplicate) };
    assert_eq!(say(&mut session, Event::Verdict(verdict)), ["round over", "check-in 2"]);
}

#[test]
fn training_goes_on_without_a_connection() {
    let mut session = training();
    say(&mut session, Event::Disconnected);
    assert!(say(&mut session, trained(1)).is_empty(), "nobody to send it to");
    upload(&mut session, Event::Connected);
}

#[test]
fn reconnections_back_off_with_a_jitter_and_start_over_when_heard() {
    let mut session = training();
    let delay = |session: &mut Session| match session.handle(Event::Disconnected, NOW)[..] {
        [Effect::Connect(time)] => time.since(NOW),
        ref other => panic!("{other:?}"),
    };
    let delays: Vec<u64> = (0..10).map(|_| delay(&mut session)).collect();
    for (n, &delay) in delays.iter().enumerate() {
        let full = (BACKOFF_FIRST_MS << n).min(BACKOFF_MAX_MS);
        assert!((full / 2..=full).contains(&delay), "{delays:?}");
    }
    hear(&mut session, assignment(1, 2));
    assert!(delay(&mut session) <= BACKOFF_FIRST_MS);
}

#[test]
fn a_catch_up_that_does_not_lead_to_the_head_is_answered_by_asking_for_everything() {
    let mut session = training();
    say(&mut session, trained(1));
    say(&mut session, accepted(1));
    let Message::CatchUp(mut wrong) = catch_up(2, 4) else { unreachable!() };
    wrong.digest = digest(5);
    assert!(hear(&mut session, Message::CatchUp(wrong)).is_empty());
    assert_eq!(hear(&mut session, assignment(2, 4)), ["check-in 0"], "the replica was dropped");
    assert!(hear(&mut session, catch_up(0, 4)).is_empty());
    assert_eq!(hear(&mut session, assignment(2, 4)), [format!("train 2 from {:?}", head(4).digest())]);
}

#[test]
fn a_coordinator_whose_digests_never_hold_is_given_up() {
    let mut session = training();
    let said: Vec<_> = (0..DIVERGED_MAX)
        .flat_map(|_| {
            let Message::CatchUp(mut wrong) = catch_up(0, 4) else { unreachable!() };
            wrong.digest = digest(5);
            hear(&mut session, Message::CatchUp(wrong))
        })
        .collect();
    assert_eq!(said, ["failed: 3 catch-ups in a row did not lead to the head's digest"]);
    assert!(say(&mut session, Event::Connected).is_empty(), "it is over");
}

#[test]
fn a_fault_in_training_ships_nothing_and_rests_until_the_round_is_over() {
    let mut session = training();
    let fault = Event::Trained { round: Round(1), result: Err("the loss is NaN".into()) };
    assert_eq!(say(&mut session, fault), ["round over", "wake 500"]);
    assert_eq!(say(&mut session, Event::Tick), ["wake 500"], "not yet");
    let later = session.handle(Event::Tick, NOW.plus(500));
    assert!(matches!(later[..], [Effect::Send(Message::CheckIn(_))]));
    let mut session = training();
    let delta = vec![f32::NAN; 4 * 14];
    let fault = Event::Trained { round: Round(1), result: Ok(Trained { delta, loss: 0.5 }) };
    assert_eq!(say(&mut session, fault), ["round over", "wake 500"], "nor does a delta that is not finite");
}

#[test]
fn a_rest_ends_though_the_clock_is_set_back_meanwhile() {
    let mut session = training();
    let fault = Event::Trained { round: Round(1), result: Err("the loss is NaN".into()) };
    assert_eq!(say(&mut session, fault), ["round over", "wake 500"]);
    // The shell waited 500 ms, and its clock shows 200 ms less than that.
    let early = session.handle(Event::Tick, NOW.plus(300));
    assert!(matches!(early[..], [Effect::Wake(until)] if until == NOW.plus(500)), "{early:?}");
    let due = session.handle(Event::Tick, NOW.plus(500));
    assert!(matches!(due[..], [Effect::Send(Message::CheckIn(_))]), "{due:?}");
}

#[test]
fn the_result_of_an_older_round_is_dropped() {
    let mut session = training();
    let said = hear(&mut session, assignment(2, 2));
    assert!(said[0] == "round over" && said[1].starts_with("train 2"), "a new round replaces the old: {said:?}");
    assert!(say(&mut session, trained(1)).is_empty());
    assert_eq!(say(&mut session, trained(2)), ["upload"]);
}

#[test]
fn a_finished_run_is_believed_only_with_the_final_digest() {
    let mut session = training();
    let finished = |version| Message::Finished(Finished { version: Version(version), digest: digest(version) });
    assert_eq!(hear(&mut session, finished(5)), ["check-in 2"], "something is missing");
    hear(&mut session, catch_up(2, 5));
    assert_eq!(hear(&mut session, finished(5)), ["finished 5"]);
}

#[test]
fn a_plan_that_cannot_be_followed_ends_the_session_with_both_sides_of_the_difference() {
    let refused = |change: fn(&mut Plan)| {
        let mut session = session();
        let Message::Plan(mut plan) = plan() else { unreachable!() };
        change(&mut plan);
        hear(&mut session, Message::Plan(plan)).concat()
    };
    assert!(refused(|plan| plan.run = RunId([8; 16])).contains("the plan is for run 0808"));
    assert!(refused(|plan| plan.base = Digest([8; 32])).contains("a base model with digest 0808"));
    assert!(refused(|plan| plan.layers[0].residual = 15).contains("the plan's layout comes to"));
    assert!(refused(|plan| plan.profile = 77).contains("word profile 77 is unknown"));
    assert!(refused(|plan| plan.layers[0].block = 0).contains("block is 0"));
}

#[test]
fn a_refusal_that_concerns_this_worker_ends_the_session_and_another_does_not() {
    let refusal = |code| Message::Refused(Refused { rejection: Rejection::new(code, "so it is") });
    let mut session = training();
    assert!(hear(&mut session, refusal(RejectionCode::Malformed)).is_empty());
    let said = hear(&mut session, refusal(RejectionCode::UnknownWorker));
    assert_eq!(said, ["failed: the coordinator refused this worker (unknown-worker): so it is"]);
    let said = hear(&mut training(), refusal(RejectionCode::Revoked));
    assert_eq!(said, ["failed: the coordinator refused this worker (revoked): so it is"]);
}

fn come_back(after_ms: u64, again_ms: u64) -> Message {
    Message::ComeBack(ComeBack { after_ms, again_ms, why: Rejection::new(RejectionCode::NotNeeded, "enough") })
}

#[test]
fn a_worker_that_is_not_needed_leaves_and_checks_in_again_when_it_is_told_to() {
    let mut session = session();
    say(&mut session, Event::Connected);
    assert_eq!(hear(&mut session, come_back(70_000, 5)), ["connect 70000"]);
    assert_eq!(say(&mut session, Event::Connected), ["check-in 0 no plan"]);
    let mut session = training();
    assert_eq!(hear(&mut session, come_back(70_000, 5)), ["round over", "connect 70000"], "whatever it does");
    assert!(say(&mut session, trained(1)).is_empty(), "nobody wants it any more");
    let year = AWAY_MAX_MS.to_string();
    assert_eq!(hear(&mut session, come_back(u64::MAX, u64::MAX)), [format!("connect {year}")]);
}

#[test]
fn a_worker_of_a_large_fleet_that_finds_nobody_waits_as_long_as_it_was_told() {
    let delays = |session: &mut Session| -> Vec<u64> {
        let delay = |_| match session.handle(Event::Disconnected, NOW)[..] {
            [Effect::Connect(time)] => time.since(NOW),
            ref other => panic!("{other:?}"),
        };
        (0..20).map(delay).collect()
    };
    let mut session = training();
    hear(&mut session, come_back(1, 1_000_000));
    let told = delays(&mut session);
    assert_eq!(told[0], 1_000_000);
    assert!(told.iter().all(|delay| (500_000..=1_500_000).contains(delay)), "{told:?}");
    assert!(told.iter().any(|delay| *delay < 900_000) && told.iter().any(|delay| *delay > 1_100_000), "{told:?}");
    say(&mut session, Event::Connected);
    hear(&mut session, assignment(2, 2));
    assert!(delays(&mut session)[0] <= BACKOFF_FIRST_MS, "whoever has work is soon back");
    hear(&mut session, come_back(1, 10));
    assert!(delays(&mut session)[0] <= BACKOFF_FIRST_MS, "and so is a small fleet");
}

#[test]
fn a_waiting_worker_says_when_its_machine_is_in_another_state() {
    let unplugged = Conditions { charging: false, ..Conditions::ALL };
    let stated = |effects: Vec<Effect>| match effects[..] {
        [Effect::Send(Message::CheckIn(ref check_in))] => check_in.conditions,
        ref other => panic!("{other:?}"),
    };
    let mut session = session();
    assert!(say(&mut session, Event::Conditions(unplugged)).is_empty(), "nobody is there yet");
    assert_eq!(stated(session.handle(Event::Connected, NOW)), unplugged);
    assert_eq!(stated(session.handle(Event::Conditions(Conditions::ALL), NOW)), Conditions::ALL);
    assert!(say(&mut session, Event::Conditions(Conditions::ALL)).is_empty(), "it is in that state already");
    let mut session = training();
    assert!(say(&mut session, Event::Conditions(unplugged)).is_empty(), "what it has begun it goes on with");
    say(&mut session, trained(1));
    assert_eq!(stated(session.handle(accepted(1), NOW)[1..].to_vec()), unplugged);
}

#[test]
fn who_follows_releases_stays_connected_when_the_run_is_over_and_takes_no_part_in_it() {
    let mut session = training();
    session = session.following();
    let finished = Message::Finished(Finished { version: Version(2), digest: digest(2) });
    assert_eq!(hear(&mut session, finished), ["round over", "finished 2"]);
    assert!(hear(&mut session, assignment(7, 2)).is_empty());
    let delay = say(&mut session, Event::Disconnected);
    assert!(delay[0].starts_with("connect "), "{delay:?}");
    assert!(say(&mut session, Event::Connected).is_empty(), "it does not check in");
    assert_eq!(hear(&mut session, come_back(70_000, 5)), ["connect 70000"]);
    say(&mut session, Event::Connected);
    let refused = Message::Refused(Refused { rejection: Rejection::new(RejectionCode::Revoked, "so it is") });
    assert_eq!(hear(&mut session, refused), ["failed: the coordinator refused this worker (revoked): so it is"]);
}
