//! What a lying worker sends in place of what its session says. Its key is its own, so whatever it alters before
//! signing is signed well.

use packfed_codec::Stream;
use packfed_protocol::{
    Digest, Identity, Limits, Message, Round, RunId, SIGNATURE_BYTES, Signed, UpdateHeader, Version, WORD_BYTES,
};

/// A lie, and the frames that tell it, each on a stream of its own.
#[derive(Clone, Debug)]
pub struct Lie {
    /// What it is, for the trace.
    pub name: &'static str,
    /// What is sent.
    pub frames: Vec<Vec<u8>>,
}

/// The name of what is no lie.
pub const HONEST: &str = "the truth";

/// In place of an update. `overheard` are frames of other updates, other workers' among them.
pub fn in_place_of_update(honest: &[u8], identity: &Identity, overheard: &[Vec<u8>], stream: &mut Stream) -> Lie {
    let once = |name, frame: Vec<u8>| Lie { name, frames: vec![frame] };
    let Ok(Message::Update(signed)) = Message::from_frame(honest, &Limits::default()) else {
        return once(HONEST, honest.to_vec());
    };
    let Signed { header, payload, .. } = signed;
    let signed = |name, header: UpdateHeader, payload: Vec<u8>| {
        once(name, Message::Update(Signed::new(identity, header, payload)).encode())
    };
    match stream.below(17) {
        0 => once(
            "a broken signature",
            flipped(honest, honest.len() - payload.len() - 1 - below(stream, SIGNATURE_BYTES)),
        ),
        1 => once("an altered payload", flipped(honest, honest.len() - 1 - below(stream, payload.len().max(1)))),
        2 => signed("a wrong base", UpdateHeader { base: Version(header.base.0 + 1), ..header }, payload),
        3 => signed("a round to come", UpdateHeader { round: Round(header.round.0 + 1), ..header }, payload),
        4 => signed("another run", UpdateHeader { run: RunId([9; 16]), ..header }, payload),
        5 => signed("another layout", UpdateHeader { layout: Digest([9; 32]), ..header }, payload),
        6 => {
            let more = [payload, vec![0; 16]].concat();
            signed("a word too many", UpdateHeader { words: header.words + 1, ..header }, more)
        }
        7 => {
            let words = header.words.saturating_sub(1);
            let fewer = payload[..usize::try_from(u64::from(words) * WORD_BYTES).unwrap_or(0)].to_vec();
            signed("a word too few", UpdateHeader { words, ..header }, fewer)
        }
        8 => signed("a loss that is not finite", UpdateHeader { train_loss: f32::NAN, ..header }, payload),
        9 => {
            let examples = [0, 101, u32::MAX][stream.index(3)];
            signed("examples outside the bound", UpdateHeader { examples, ..header }, payload)
        }
        10 => signed("more examples than it has", UpdateHeader { examples: 100, ..header }, payload),
        11 => {
            let clipped = header.clipped.iter().map(|_| packfed_protocol::LaneClips { wave: u32::MAX, residual: 1 });
            signed("too many clips", UpdateHeader { clipped: clipped.collect(), ..header }, payload)
        }
        12 => {
            let mut random = payload;
            random.iter_mut().for_each(|byte| *byte = stream.bits_32().to_le_bytes()[0]);
            signed("random words", header, random)
        }
        13 if !overheard.is_empty() => once("a replay", overheard[stream.index(overheard.len())].clone()),
        14 => Lie { name: "the same thrice", frames: vec![honest.to_vec(); 3] },
        15 => once("a cut frame", honest[..below(stream, honest.len())].to_vec()),
        _ => once("garbage", (0..stream.below(64)).map(|_| stream.bits_32().to_le_bytes()[0]).collect()),
    }
}

/// In place of something on the control stream.
pub fn in_place_of_control(honest: &[u8], stream: &mut Stream) -> Lie {
    let Ok(Message::CheckIn(check_in)) = Message::from_frame(honest, &Limits::default()) else {
        return Lie { name: HONEST, frames: vec![honest.to_vec()] };
    };
    match stream.below(8) {
        0 => {
            let mut check_in = check_in;
            check_in.version = Version(stream.below(20));
            Lie { name: "a version that it has not", frames: vec![Message::CheckIn(check_in).encode()] }
        }
        1 => {
            let mut check_in = check_in;
            check_in.planned = false;
            Lie { name: "three requests for the plan", frames: vec![Message::CheckIn(check_in).encode(); 3] }
        }
        2 => Lie {
            name: "a question that it may not ask",
            frames: vec![honest.to_vec(), Message::StatusRequest.encode()],
        },
        3 => Lie { name: "garbage for a check-in", frames: vec![honest[..below(stream, honest.len())].to_vec()] },
        _ => Lie { name: HONEST, frames: vec![honest.to_vec()] },
    }
}

fn below(stream: &mut Stream, bound: usize) -> usize {
    stream.index(bound.max(1))
}

fn flipped(frame: &[u8], at: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 0x10;
    }
    frame
}
