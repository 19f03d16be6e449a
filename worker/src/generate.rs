//! Text from a decoder, one token at a time, over its cache of keys and values.
//!
//! ```text
//!  prompt ──► Llama::step ──► logits ──► Sampling::draw ──► token ──► TextStream ──► text
//!                  ▲                                          │
//!                  └──────────────────────────────────────────┘
//! ```
//!
//! Temperature 0 takes the likeliest token. Otherwise a token is drawn from the nucleus: the likeliest tokens, as few
//! as have `top_p` of the probability together (Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020).
//! The same seed gives the same tokens. It knows no files.

use candle_core::Error as TensorError;
use packfed_codec::{Scalar, Seed, Stream};
use thiserror::Error;

use crate::adapted::Element;
use crate::model::linears::Linears;
use crate::model::llama::{Cache, Llama};
use crate::text::{TextStream, Tokenizer, TokenizerError};

/// Why there are no tokens, or no more of them.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// The temperature is negative or no number.
    #[error("temperature {0}, allowed is a finite number of at least 0")]
    Temperature(f64),
    /// The nucleus is empty or more than everything.
    #[error("top-p {0}, allowed is above 0 and at most 1")]
    TopP(f64),
    /// There is nothing to continue, or more than the model takes.
    #[error("a prompt of {tokens} tokens, allowed are 1 to {max}")]
    Prompt {
        /// Tokens of the prompt.
        tokens: usize,
        /// Most that the model takes.
        max: usize,
    },
    /// The model's outputs are no numbers.
    #[error("the logit of token {token} is {value} after {position} tokens")]
    Logit {
        /// The token.
        token: usize,
        /// Its logit.
        value: f64,
        /// Tokens before it.
        position: usize,
    },
    /// The model refused.
    #[error(transparent)]
    Model(#[from] TensorError),
    /// The tokenizer refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// How a token is chosen from its probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    temperature: f64,
    top_p: f64,
}

impl Sampling {
    /// The likeliest token, the first of equals.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0 };

    /// Logits are divided by `temperature`, and tokens outside the nucleus of `top_p` are never drawn. Temperature 0 is
    /// [`Sampling::GREEDY`].
    ///
    /// # Errors
    /// If `temperature` is negative or not finite, or `top_p` is not within `(0, 1]`.
    pub fn new(temperature: f64, top_p: f64) -> Result<Self, GenerateError> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(GenerateError::Temperature(temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(GenerateError::TopP(top_p));
        }
        Ok(Self { temperature, top_p })
    }

    /// The token that these finite logits and the next draw of `stream` come to; greedy draws nothing.
    fn draw(self, logits: &[f64], stream: &mut Stream) -> usize {
        if self.temperature == 0.0 {
            // Of equals the first.
            return (1..logits.len()).fold(0, |best, token| if logits[token] > logits[best] { token } else { best });
        }
        let nucleus = self.nucleus(logits);
        let total: f64 = nucleus.iter().map(|(_, weight)| weight).sum();
        let mut left = stream.unit() * total;
        for &(token, weight) in &nucleus {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        // Rounding has left a last crumb.
        nucleus.last().map_or(0, |&(token, _)| token)
    }

    /// The tokens that may be drawn and their weights, likeliest first where the nucleus is not everything.
    fn nucleus(self, logits: &[f64]) -> Vec<(usize, f64)> {
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |&logit: &f64| ((logit - max) / self.temperature).exp();
        let mut weights: Vec<(usize, f64)> = logits.iter().map(weight).enumerate().collect();
        if self.top_p < 1.0 {
            weights.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
            let enough = self.top_p * weights.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut sum = 0.0;
            let mut short = |&(_, weight): &(usize, f64)| {
                let short = sum < enough;
                sum += weight;
                short
            };
            let kept = weights.iter().take_while(|&of| short(of)).count();
            weights.truncate(kept);
        }
        weights
    }
}

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Ids that are continued.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens that are given.
    pub tokens_max: usize,
    /// Tokens that end the text; they are not given.
    pub stop: Vec<u32>,
}

/// Why generation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The model gave a token that ends the text.
    Stop,
    /// There are as many tokens as were asked for.
    Limit,
    /// The model takes no longer texts.
    Positions,
    /// An error was given.
    Failed,
}

/// The tokens that continue a prompt, computed as they are asked for.
pub struct Generation<'a, E> {
    llama: &'a Llama<E>,
    linears: &'a dyn Linears,
    cache: Cache<E>,
    stream: Stream,
    request: Request,
    /// Ids that the model has not seen yet.
    ahead: Vec<u32>,
    given: usize,
    ended: Option<Ended>,
}

impl<'a, E: Element> Generation<'a, E> {
    /// Continues a prompt with the model and its matrices. Nothing is computed yet.
    ///
    /// # Errors
    /// If the prompt is empty, or longer than the model takes.
    pub fn new(
        llama: &'a Llama<E>,
        linears: &'a dyn Linears,
        request: Request,
        seed: &Seed,
    ) -> Result<Self, GenerateError> {
        let (tokens, max) = (request.prompt.len(), llama.config().positions_max);
        if !(1..=max).contains(&tokens) {
            return Err(GenerateError::Prompt { tokens, max });
        }
        Ok(Self {
            llama,
            linears,
            cache: llama.cache(),
            stream: seed.derive("packfed/generate/1", &[]).stream(),
            ahead: request.prompt.clone(),
            request,
            given: 0,
            ended: None,
        })
    }

    /// Why there are no more tokens; nothing while there may be.
    #[must_use]
    pub const fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The tokens as text, in pieces of whole characters.
    #[must_use]
    pub fn text(self, tokenizer: &'a Tokenizer) -> GeneratedText<'a, E> {
        GeneratedText { tokens: self, stream: Some(tokenizer.stream()) }
    }

    fn token(&mut self) -> Result<u32, GenerateError> {
        let logits = self.llama.step(self.linears, &self.ahead, &mut self.cache)?;
        let logits: Vec<f64> = logits.into_iter().map(Scalar::to_f64).collect();
        if let Some((token, &value)) = logits.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(GenerateError::Logit { token, value, position: self.cache.tokens() });
        }
        let token = self.request.sampling.draw(&logits, &mut self.stream);
        Ok(u32::try_from(token).expect("a vocabulary has fewer than 2^32 tokens, as ids are 32 bits"))
    }
}

impl<E: Element> Iterator for Generation<'_, E> {
    type Item = Result<u32, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended.is_some() {
            return None;
        }
        if self.given == self.request.tokens_max {
            self.ended = Some(Ended::Limit);
            return None;
        }
        if self.cache.tokens() + self.ahead.len() > self.llama.config().positions_max {
            self.ended = Some(Ended::Positions);
            return None;
        }
        match self.token() {
            Ok(token) if self.request.stop.contains(&token) => {
                self.ended = Some(Ended::Stop);
                None
            }
            Ok(token) => {
                self.ahead = vec![token];
                self.given += 1;
                Some(Ok(token))
            }
            Err(error) => {
                self.ended = Some(Ended::Failed);
                Some(Err(error))
            }
        }
    }
}

/// A continuation as text; a piece is never empty.
pub struct GeneratedText<'a, E> {
    tokens: Generation<'a, E>,
    /// Until the last piece.
    stream: Option<TextStream<'a>>,
}

impl<E: Element> GeneratedText<'_, E> {
    /// As [`Generation::ended`].
    #[must_use]
    pub const fn ended(&self) -> Option<Ended> {
        self.tokens.ended
    }
}

impl<E: Element> Iterator for GeneratedText<'_, E> {
    type Item = Result<String, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(stream) = &mut self.stream {
            let piece = match self.tokens.next() {
                Some(Ok(token)) => stream.push(token),
                Some(Err(error)) => {
                    self.stream = None;
                    return Some(Err(error));
                }
                None => self.stream.take()?.finish(),
            };
            match piece {
                Ok(piece) if piece.is_empty() => {}
                piece => return Some(piece.map_err(GenerateError::from)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::*;
    use crate::model::linears::{Linear, Packed, load};
    use crate::model::llama::LlamaConfig;
    use crate::model::tokens::Tokens;
    use crate::nn::activation::Activation;
    use crate::nn::check::noise;
    use crate::text::tests::word_piece;
    use crate::weight::{Stored, Weight};

    const VOCABULARY: usize = 17;

    fn model(scale: f32) -> (Llama<f32>, Arc<dyn Linears>) {
        let config = LlamaConfig {
            hidden: 16,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            head_size: 8,
            intermediate: 24,
            vocabulary: VOCABULARY,
            positions_max: 12,
            norm_eps: 1e-5,
            rope_theta: 100.0,
            tied_embeddings: true,
            activation: Activation::Silu,
        };
        let mut seed = 0;
        let mut source = |name: &str, shape: &[usize]| -> Result<Weight, Infallible> {
            seed += 1;
            let values = noise(seed, shape.iter().product()).into_iter();
            let values = values.map(|value| scale * <f32 as Scalar>::from_f64(value)).collect();
            Ok(Weight { name: name.into(), shape: shape.to_vec(), stored: Stored::F32(Arc::new(values)) })
        };
        let llama = Llama::load(config, &mut source).unwrap();
        let matrices = load::<f32, _>(&config.matrices(), &mut source).unwrap();
        (llama, Arc::new(Packed::new(matrices.into_iter().map(Linear::Frozen).collect())))
    }

    fn request(sampling: Sampling) -> Request {
        Request { prompt: vec![4, 5], sampling, tokens_max: 8, stop: Vec::new() }
    }

    fn tokens(request: &Request, seed: u64) -> (Vec<u32>, Option<Ended>) {
        let (llama, linears) = model(1.0);
        let mut generation = Generation::new(&llama, &*linears, request.clone(), &Seed::from_number(seed)).unwrap();
        let tokens = generation.by_ref().map(Result::unwrap).collect();
        (tokens, generation.ended())
    }

    #[test]
    fn greedy_tokens_are_the_largest_logits_of_the_whole_text() {
        let (llama, linears) = model(1.0);
        let (found, ended) = tokens(&request(Sampling::GREEDY), 1);
        assert_eq!((found.len(), ended), (8, Some(Ended::Limit)));
        let text = [vec![4, 5], found.clone()].concat();
        let logits = llama.logits(&linears, &Tokens::new(&[text])).unwrap().to_vec2::<f32>().unwrap();
        for (row, &token) in logits[1..].iter().zip(&found) {
            let largest = (0..VOCABULARY).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            assert_eq!(token as usize, largest);
        }
        assert_eq!(tokens(&request(Sampling::new(0.0, 0.3).unwrap()), 2).0, found, "no seed matters");
        assert_eq!(Sampling::GREEDY.draw(&[1.0, 3.0, 3.0], &mut Seed::from_number(1).stream()), 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens_and_another_gives_others() {
        let warm = request(Sampling::new(1.5, 0.95).unwrap());
        assert_eq!(tokens(&warm, 1), tokens(&warm, 1));
        let different: BTreeSet<_> = (0..6).map(|seed| tokens(&warm, seed).0).collect();
        assert!(different.len() > 3, "{different:?}");
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_that_have_top_p_together() {
        // Probabilities of 0.5, 0.1, 0.25 and 0.15.
        let logits = [0.5f64, 0.1, 0.25, 0.15].map(f64::ln);
        for (top_p, expected) in [
            (0.4, vec![0]),
            (0.6, vec![0, 2]),
            (0.76, vec![0, 2, 3]),
            (0.95, vec![0, 2, 3, 1]),
            (1.0, vec![0, 1, 2, 3]),
        ] {
            let sampling = Sampling::new(1.0, top_p).unwrap();
            let kept: Vec<usize> = sampling.nucleus(&logits).into_iter().map(|(token, _)| token).collect();
            assert_eq!(kept, expected, "{top_p}");
            let mut stream = Seed::from_number(1).stream();
            let drawn: BTreeSet<usize> = (0..400).map(|_| sampling.draw(&logits, &mut stream)).collect();
            assert_eq!(drawn, kept.into_iter().collect(), "{top_p}");
        }
    }

    #[test]
    fn tokens_are_drawn_as_often_as_temperature_and_nucleus_say() {
        let logits = [0.5f64, 0.1, 0.25, 0.15].map(f64::ln);
        // At temperature ½ probabilities are squared: 0.25 to 0.0625 of the two in the nucleus.
        let sampling = Sampling::new(0.5, 0.85).unwrap();
        let mut stream = Seed::from_number(2).stream();
        let firsts = (0..4_000).filter(|_| sampling.draw(&logits, &mut stream) == 0).count();
        assert!((3_100..3_300).contains(&firsts), "{firsts} of 4000, expected 3200");
        let cold = Sampling::new(1e-300, 1.0).unwrap();
        assert_eq!(cold.draw(&[-1e30, 2.0, 1.0], &mut stream), 1);
    }

    #[test]
    fn a_stop_token_ends_the_text_and_so_does_the_last_position() {
        let (all, _) = tokens(&request(Sampling::GREEDY), 1);
        let first = all.iter().position(|&token| token == all[3]).unwrap();
        let stopped = Request { stop: vec![99, all[3]], ..request(Sampling::GREEDY) };
        assert_eq!(tokens(&stopped, 1), (all[..first].to_vec(), Some(Ended::Stop)));
        let long = Request { tokens_max: 100, ..request(Sampling::GREEDY) };
        // The last token follows all 12 positions.
        let (found, ended) = tokens(&long, 1);
        assert_eq!((found.len(), ended), (11, Some(Ended::Positions)));
        assert_eq!(tokens(&Request { tokens_max: 0, ..long }, 1), (Vec::new(), Some(Ended::Limit)));
    }

    #[test]
    fn pieces_of_text_are_the_text_of_all_tokens() {
        let tokenizer = word_piece();
        let (llama, linears) = model(1.0);
        let warm = request(Sampling::new(2.0, 1.0).unwrap());
        let (ids, _) = tokens(&warm, 3);
        let generation = Generation::new(&llama, &*linears, warm, &Seed::from_number(3)).unwrap();
        let mut text = generation.text(&tokenizer);
        let pieces: Vec<String> = text.by_ref().map(Result::unwrap).collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| !piece.is_empty()), "{pieces:?}");
        assert_eq!(pieces.concat(), tokenizer.decode(&ids).unwrap());
        assert_eq!(text.ended(), Some(Ended::Limit));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let text = |error: GenerateError| error.to_string();
        assert_eq!(
            text(Sampling::new(-0.5, 1.0).unwrap_err()),
            "temperature -0.5, allowed is a finite number of at least 0"
        );
        assert!(matches!(Sampling::new(f64::NAN, 1.0), Err(GenerateError::Temperature(_))));
        for top_p in [0.0, 1.01, f64::NAN] {
            assert!(matches!(Sampling::new(1.0, top_p), Err(GenerateError::TopP(_))));
        }
        let (llama, linears) = model(1.0);
        for prompt in [vec![], vec![1; 13]] {
            let request = Request { prompt, ..request(Sampling::GREEDY) };
            let error = Generation::new(&llama, &*linears, request, &Seed::from_number(1)).err().unwrap();
            assert!(text(error).ends_with("allowed are 1 to 12"));
        }
        let request = Request { prompt: vec![200], ..request(Sampling::GREEDY) };
        let mut generation = Generation::new(&llama, &*linears, request, &Seed::from_number(1)).unwrap();
        assert!(matches!(generation.next(), Some(Err(GenerateError::Model(_)))));
        assert!(generation.next().is_none() && generation.ended() == Some(Ended::Failed));
    }

    #[test]
    fn outputs_that_are_no_numbers_are_an_error() {
        let (llama, linears) = model(f32::NAN);
        let generation = Generation::new(&llama, &*linears, request(Sampling::GREEDY), &Seed::from_number(1)).unwrap();
        let all: Vec<_> = generation.collect();
        assert!(matches!(all.as_slice(), [Err(GenerateError::Logit { token: 0, position: 2, .. })]));
    }
}
