//! Coupon codes: twelve characters a person can read aloud, the last of which catches typing errors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A coupon's code: 11 characters of chance and a check character.
///
/// The check character makes the twelve symbols a codeword over GF(32): position `i` is weighted by α^i, and α has
/// order 31, so every single wrong character and every swap of two characters is noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = String, pattern = "^[0-9A-HJKMNP-TV-Z]{12}$", examples("7K3M9QZ2WX4T")))]
pub struct CouponCode([u8; 12]);

/// A text that is no coupon code: of another length, with other characters, or with a typing error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 12 characters of 0-9 A-Z without I L O U, the last one matching the others")]
pub struct InvalidCode;

impl CouponCode {
    /// The code made of the low 55 bits of `random`, which must come from a secure source: a code is what its owner
    /// shows at the till.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        let mut symbols = [0_u8; 12];
        let mut rest = random;
        for symbol in symbols.iter_mut().take(11) {
            *symbol = (rest & 31) as u8;
            rest >>= 5;
        }
        let check = check_symbol(&symbols);
        if let Some(last) = symbols.last_mut() {
            *last = check;
        }
        Self(symbols.map(|symbol| ALPHABET.get(usize::from(symbol)).copied().unwrap_or(b'0')))
    }

    /// Reads a code as a person may write it: in either case, `O` for `0`, `I` or `L` for `1`.
    ///
    /// # Errors
    /// [`InvalidCode`].
    pub fn parse(text: &str) -> Result<Self, InvalidCode> {
        let bytes: [u8; 12] = text.as_bytes().try_into().map_err(|_| InvalidCode)?;
        let mut symbols = [0_u8; 12];
        for (symbol, byte) in symbols.iter_mut().zip(bytes) {
            *symbol = symbol_of(byte).ok_or(InvalidCode)?;
        }
        if symbols.last().copied() != Some(check_symbol(&symbols)) {
            return Err(InvalidCode);
        }
        Ok(Self(symbols.map(|symbol| ALPHABET.get(usize::from(symbol)).copied().unwrap_or(b'0'))))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The check symbol over the first eleven: Horner's rule in GF(32) with x^5 + x^2 + 1.
fn check_symbol(symbols: &[u8; 12]) -> u8 {
    symbols.iter().take(11).fold(0, |sum, symbol| times_alpha(sum ^ symbol))
}

fn times_alpha(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 0b10_0000 == 0 { shifted } else { (shifted ^ 0b10_0101) & 31 }
}

fn symbol_of(byte: u8) -> Option<u8> {
    let canonical = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    ALPHABET.iter().position(|c| *c == canonical).and_then(|at| u8::try_from(at).ok())
}

impl fmt::Display for CouponCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CouponCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CouponCode({self})")
    }
}

impl FromStr for CouponCode {
    type Err = InvalidCode;
    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CouponCode {
    type Error = InvalidCode;
    fn try_from(text: String) -> Result<Self, InvalidCode> {
        Self::parse(&text)
    }
}

impl From<CouponCode> for String {
    fn from(code: CouponCode) -> Self {
        code.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_round_trip_and_forgive_handwriting(random: u64) {
            let code = CouponCode::from_random(random);
            prop_assert_eq!(CouponCode::parse(code.as_str()), Ok(code));
            let written = code.as_str().to_lowercase().replace('0', "o").replace('1', "l");
            prop_assert_eq!(CouponCode::parse(&written), Ok(code));
        }

        #[test]
        fn one_wrong_character_or_a_swap_is_noticed(random: u64, at in 0_usize..12, with in 0_usize..12, to in 0_usize..32) {
            let code = CouponCode::from_random(random);
            let mut wrong = code.0;
            wrong[at] = ALPHABET[to];
            prop_assert_eq!(CouponCode::parse(std::str::from_utf8(&wrong).unwrap()).is_ok(), wrong == code.0);
            let mut swapped = code.0;
            swapped.swap(at, with);
            prop_assert_eq!(CouponCode::parse(std::str::from_utf8(&swapped).unwrap()).is_ok(), swapped == code.0);
        }
    }

    #[test]
    fn other_texts_are_no_codes() {
        for bad in ["", "7K3M9QZ2WX4", "7K3M9QZ2WX4TT", "7K3M9QZ2WX4U", "7K3M-QZ2WX4T", "7K3M9QZ2WXé"] {
            assert_eq!(CouponCode::parse(bad), Err(InvalidCode), "{bad}");
        }
    }
}
