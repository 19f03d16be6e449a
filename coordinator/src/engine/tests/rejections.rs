//! Every way in which an update is not in order, and that none of them leaves a trace in the model.

use packfed_protocol::{Digest, LaneClips, Round, RunId, Verified, Version};

use super::fleet::Fleet;

/// Three of four workers are in round 2; the first of them has reported.
struct Scene {
    fleet: Fleet,
    drawn: Vec<usize>,
    undrawn: usize,
    /// Accepted in round 1.
    old: Verified,
    /// Somebody who was not in round 1, with work for it.
    old_uninvited: Verified,
    /// Accepted in round 2.
    accepted: Verified,
}

fn scene() -> Scene {
    let mut fleet = Fleet::of(4, |raw| raw.reporting.goal = 3);
    fleet.check_in_all(0..4);
    let first = fleet.drawn();
    let undrawn = |drawn: &[usize]| (0..4).find(|i| !drawn.contains(i)).unwrap();
    let old = fleet.update(first[1]);
    let assignment = fleet.workers[first[0]].assignment.clone().unwrap();
    let old_uninvited = fleet.uninvited(undrawn(&first), &assignment);
    for &i in &first {
        fleet.report(i);
    }
    fleet.check_in_all(0..4);
    assert_eq!(fleet.open_round(), Some(2));
    let drawn = fleet.drawn();
    let accepted = fleet.update(drawn[0]);
    fleet.send(accepted.clone());
    Scene { undrawn: undrawn(&drawn), fleet, drawn, old, old_uninvited, accepted }
}

/// The round goes on to its end.
fn digest_at_the_end(mut scene: Scene) -> Digest {
    for &i in &scene.drawn[1..] {
        assert_eq!(scene.fleet.report(i)[1], "verdict accepted");
    }
    assert!(scene.fleet.engine.finished());
    scene.fleet.digest()
}

/// The update is rejected with this code, is counted, and the round ends as if it had never come.
fn check(code: &str, bad: impl FnOnce(&Scene) -> Verified) {
    let mut scene = scene();
    let update = bad(&scene);
    let said = scene.fleet.send(update);
    assert_eq!(said.last(), Some(&format!("verdict rejected {code}")));
    assert!(said[..said.len() - 1].iter().all(|line| line.starts_with("store members")), "{said:?}");
    assert_eq!(scene.fleet.engine.counters().rejected[code], 1);
    assert_eq!(digest_at_the_end(scene), digest_at_the_end(self::scene()));
}

/// Work of a worker that is still awaited, for the open round.
fn uninvited(scene: &Scene, i: usize) -> Verified {
    scene.fleet.uninvited(i, scene.fleet.workers[scene.drawn[1]].assignment.as_ref().unwrap())
}

#[test]
fn of_a_key_that_is_not_enrolled() {
    check("unknown-worker", |scene| uninvited(scene, scene.fleet.suspended() + 1));
}

#[test]
fn of_a_suspended_worker() {
    check("suspended", |scene| uninvited(scene, scene.fleet.suspended()));
}

#[test]
fn for_another_run() {
    check("wrong-run", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.run = RunId([9; 16])));
}

#[test]
fn in_another_layout() {
    check("wrong-layout", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.layout = Digest([9; 32])));
}

#[test]
fn accepted_once_and_sent_again_after_its_round() {
    check("replayed", |scene| scene.old.clone());
}

#[test]
fn for_an_old_round_by_somebody_who_was_not_in_it() {
    check("replayed", |scene| scene.old_uninvited.clone());
    check("replayed", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.round = Round(0)));
}

#[test]
fn of_a_worker_that_was_not_drawn() {
    check("not-selected", |scene| uninvited(scene, scene.undrawn));
}

#[test]
fn for_a_round_that_is_not_open_yet() {
    for round in [3, u64::MAX] {
        check("not-selected", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.round = Round(round)));
    }
}

#[test]
fn a_second_one_in_a_round() {
    check("duplicate", |scene| scene.accepted.clone());
    check("duplicate", |scene| scene.fleet.mangled(scene.drawn[0], |_, payload| payload[0] ^= 1));
}

#[test]
fn against_an_older_base() {
    for base in [0, 2] {
        check("stale-base", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.base = Version(base)));
    }
}

#[test]
fn with_more_or_fewer_words_than_blocks() {
    for more in [true, false] {
        check("wrong-block-count", |scene| {
            scene.fleet.mangled(scene.drawn[1], |header, payload| {
                let length = if more { payload.len() + 16 } else { payload.len() - 16 };
                payload.resize(length, 0);
                header.words = if more { header.words + 1 } else { header.words - 1 };
            })
        });
    }
}

#[test]
fn with_no_examples_or_more_than_the_cap() {
    for examples in [0, 101, u32::MAX] {
        check("example-cap", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.examples = examples));
    }
}

#[test]
fn with_a_loss_that_is_no_number() {
    for loss in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        check("not-finite", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.train_loss = loss));
    }
}

#[test]
fn without_one_pair_of_clip_counts_a_layer() {
    for layers in [0, 1, 3] {
        check("malformed", |scene| {
            scene.fleet.mangled(scene.drawn[1], |header, _| header.clipped.resize(layers, LaneClips::default()))
        });
    }
}

#[test]
fn with_more_lanes_clipped_than_there_are() {
    check("malformed", |scene| scene.fleet.mangled(scene.drawn[1], |header, _| header.clipped[1].residual = u32::MAX));
}

#[test]
fn with_something_in_a_lane_that_no_position_stands_behind() {
    // The last block is 1 × 1: one coefficient, so the word ends in padding.
    check("malformed", |scene| scene.fleet.mangled(scene.drawn[1], |_, payload| *payload.last_mut().unwrap() = 1));
}

#[test]
fn an_honest_update_within_the_cap_is_never_rejected_for_what_others_claimed() {
    let mut fleet = Fleet::of(256, |raw| raw.examples_max = 1 << 24);
    fleet.check_in_all(0..256);
    for i in 0..256 {
        let update = fleet.mangled(i, |header, _| header.examples = 1 << 24);
        assert_eq!(fleet.send(update)[0], format!("store accept {i} into 1"));
    }
}
