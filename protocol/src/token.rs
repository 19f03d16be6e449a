//! The one-time secret with which a worker enrols.
//!
//! Whoever holds it may put a key into the registry once. It shows itself only when asked to
//! (`Display`, to hand it over), never in a debug print. It does not know whether it was used.

use std::fmt;

use crate::id::byte_id;
use crate::identity::IdentityError;

byte_id! {
    /// A one-time enrolment token: 16 random bytes, hex to people, redacted in `Debug`.
    Token, 16, "token"
}

impl Token {
    /// A fresh token from the operating system's generator.
    ///
    /// # Errors
    /// [`IdentityError::Random`] if the operating system has no randomness to give.
    pub fn generate() -> Result<Token, IdentityError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| IdentityError::Random { reason: error.to_string() })?;
        Ok(Token(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_only_when_asked_for() {
        let token = Token([0x5a; 16]);
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_eq!(token.to_string(), "5a".repeat(16));
        assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn two_tokens_differ() {
        assert_ne!(Token::generate().unwrap(), Token::generate().unwrap());
    }
}
