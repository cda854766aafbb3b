//! Who operates: named bearer tokens with a role each. Only their digests are kept.

use std::fmt;

use doorbuster_domain::schedule::FieldError;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::Secret;

/// The operator whose token is `admin_token`.
pub const ADMIN: &str = "admin";

/// Shortest token, bytes: a shorter one holds for nobody, whatever digests are configured.
pub const SHORTEST_TOKEN: usize = 16;

/// Longest name, characters.
const LONGEST_NAME: usize = 63;

/// What a token's owner may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Look at everything.
    Viewer,
    /// Redeem coupons and look at one, as a shop's server does. Nothing else.
    Cashier,
    /// Look at everything and change it.
    Operator,
}

/// The two kinds of operators' routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// What redeeming a coupon needs.
    Coupons,
    /// All other routes.
    Administration,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Looks at something.
    Look,
    /// Changes something.
    Change,
}

impl Role {
    /// The role of a name in the configuration.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "cashier" => Some(Self::Cashier),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }

    /// Whether a request to a route of this area is allowed.
    #[must_use]
    pub fn may(self, area: Area, deed: Deed) -> bool {
        match self {
            Self::Operator => true,
            Self::Viewer => deed == Deed::Look,
            Self::Cashier => area == Area::Coupons,
        }
    }
}

/// Somebody whose token holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// By which the audit log knows them.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// An operator, and the SHA-256 of their token. Tokens are drawn with at least 128 random bits (`doorbuster token new`
/// draws 256), so nothing slower is needed to keep a digest from being turned back.
#[derive(Clone)]
pub struct Token {
    operator: Operator,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operator.fmt(f)
    }
}

impl Token {
    /// Reads one as it is configured: `role` is `viewer`, `cashier` or `operator`, `sha256`
    /// hexadecimal.
    ///
    /// # Errors
    /// The first of the three that does not hold.
    pub fn parse(name: &str, role: &str, sha256: &str) -> Result<Self, FieldError> {
        let named = (1..=LONGEST_NAME).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        if !named {
            let message = format!("{name:?} is not 1 to {LONGEST_NAME} characters of a-z 0-9 -");
            return Err(FieldError::new("name", message));
        }
        let role = Role::parse(role).ok_or_else(|| {
            let message = format!("{role:?} is none of \"viewer\", \"cashier\" and \"operator\"");
            FieldError::new("role", message)
        })?;
        // Not shown: whoever takes the field for the token's own has a secret there.
        let digest = parse_digest(sha256).ok_or_else(|| {
            FieldError::new("sha256", "is not 64 hexadecimal digits; `doorbuster token new` makes some")
        })?;
        Ok(Self { operator: Operator { name: name.to_owned(), role }, digest })
    }
}

fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let pairs = text.as_bytes().chunks(2);
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Every operator.
#[derive(Debug, Clone)]
pub struct Operators(Vec<Token>);

impl Operators {
    /// The owner of `admin_token`, and those of `tokens`.
    ///
    /// # Errors
    /// If two have one name or one token: the message names them.
    pub fn new(admin_token: &Secret, tokens: Vec<Token>) -> Result<Self, String> {
        let admin = Operator { name: ADMIN.to_owned(), role: Role::Operator };
        let mut all = vec![Token { operator: admin, digest: digest(admin_token.expose().as_bytes()) }];
        for token in tokens {
            let name = &token.operator.name;
            if all.iter().any(|other| other.operator.name == *name) {
                return Err(format!("{name:?} is the name of another token, too; give each one of its own"));
            }
            if let Some(other) = all.iter().find(|other| other.digest == token.digest) {
                return Err(format!("{name:?} has the token of {:?}; give each one of its own", other.operator.name));
            }
            all.push(token);
        }
        Ok(Self(all))
    }

    /// The owner of a token. Takes the same time whichever it is, and whether or not there is one.
    #[must_use]
    pub fn identify(&self, token: &[u8]) -> Option<&Operator> {
        let given = digest(token);
        let mut found = u64::MAX;
        for (place, known) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&place, known.digest.ct_eq(&given));
        }
        let long_enough = Choice::from(u8::from(token.len() >= SHORTEST_TOKEN));
        let found = u64::conditional_select(&u64::MAX, &found, long_enough);
        usize::try_from(found).ok().and_then(|place| self.0.get(place)).map(|known| &known.operator)
    }
}

/// Whether a token is the one expected. Digests are of one length, so that comparing them tells nothing about the token,
/// its length included.
#[must_use]
pub fn is_same(given: &[u8], expected: &Secret) -> bool {
    digest(given).ct_eq(&digest(expected.expose().as_bytes())).into()
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN_TOKEN: &str = "0123456789abcdef";

    fn hex(token: &str) -> String {
        digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn operators(tokens: &[(&str, &str, &str)]) -> Result<Operators, String> {
        let tokens = tokens.iter().map(|(name, role, token)| Token::parse(name, role, &hex(token)).unwrap()).collect();
        Operators::new(&Secret::new(ADMIN_TOKEN), tokens)
    }

    #[test]
    fn a_token_names_its_owner_and_a_wrong_or_short_one_nobody() {
        let known = operators(&[("ann", "operator", "ann's own long token"), ("bob", "viewer", "short")]).unwrap();
        let who = |token: &str| known.identify(token.as_bytes()).map(|who| (who.name.as_str(), who.role));
        assert_eq!(who(ADMIN_TOKEN), Some((ADMIN, Role::Operator)));
        assert_eq!(who("ann's own long token"), Some(("ann", Role::Operator)));
        for wrong in ["", "short", "ann's own long token ", "0123456789abcdeF"] {
            assert_eq!(who(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_cashier_does_what_the_till_needs_and_nothing_else() {
        for (role, coupons, administration) in [
            (Role::Viewer, [true, false], [true, false]),
            (Role::Cashier, [true, true], [false, false]),
            (Role::Operator, [true, true], [true, true]),
        ] {
            let may = |area| [Deed::Look, Deed::Change].map(|deed| role.may(area, deed));
            assert_eq!((may(Area::Coupons), may(Area::Administration)), (coupons, administration), "{role:?}");
        }
    }

    #[test]
    fn names_and_tokens_are_not_shared() {
        let twice = operators(&[("ann", "viewer", "a long token of ann"), ("ann", "viewer", "another token of ann")]);
        assert!(twice.unwrap_err().contains("\"ann\" is the name of another"));
        assert!(operators(&[(ADMIN, "viewer", "a long token of ann")]).is_err());
        let shared = operators(&[("ann", "viewer", ADMIN_TOKEN)]).unwrap_err();
        assert!(shared.contains("\"ann\" has the token of \"admin\""), "{shared}");
    }

    #[test]
    fn what_does_not_hold_is_named_without_a_secret() {
        let digest = &"c0ffee11".repeat(8);
        for (name, role, sha256, field) in [
            ("", "viewer", digest, "name"),
            ("Ann", "viewer", digest, "name"),
            ("ann", "root", digest, "role"),
            ("ann", "Cashier", digest, "role"),
            ("ann", "viewer", &"hunter2-hunter2-hunter2".to_owned(), "sha256"),
            ("ann", "viewer", &digest.replace('c', "g"), "sha256"),
            ("ann", "viewer", &format!("+{}", &digest[1..]), "sha256"),
        ] {
            let error = Token::parse(name, role, sha256).unwrap_err();
            assert_eq!(error.field, field);
            assert!(!error.message.contains("hunter2"), "{error:?}");
        }
        let token = Token::parse("ann", "viewer", digest).unwrap();
        assert_eq!(format!("{token:?}"), "Operator { name: \"ann\", role: Viewer }", "its digest is nobody's business");
    }
}
