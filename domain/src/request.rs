//! What a client asks for, read from bytes that nothing vouches for. Both tiers read them here, so both give one answer.

use percent_encoding::percent_decode;

use crate::id::{CampaignId, UserId};
use crate::refusal::Refusal;

/// Name of the header in which the authentication in front of the filter puts the user's id.
pub const USER_HEADER: &str = "x-user-id";

/// The campaign that a query string (without its `?`) names, else the default one.
///
/// # Errors
/// [`Refusal::InvalidCampaign`] if it is malformed, named twice, or left out where there is no default.
pub fn campaign(query: &[u8], default: Option<&CampaignId>) -> Result<CampaignId, Refusal> {
    let mut named = query.split(|c| *c == b'&').filter_map(|pair| {
        let mut parts = pair.splitn(2, |c| *c == b'=');
        let name = parts.next().unwrap_or_default();
        percent_decode(name).eq(b"campaign".iter().copied()).then(|| parts.next().unwrap_or_default())
    });
    match (named.next(), named.next()) {
        (Some(value), None) => percent_decode(value)
            .decode_utf8()
            .ok()
            .and_then(|id| CampaignId::parse(&id).ok())
            .ok_or(Refusal::InvalidCampaign),
        (None, _) => default.cloned().ok_or(Refusal::InvalidCampaign),
        (Some(_), Some(_)) => Err(Refusal::InvalidCampaign),
    }
}

/// The user that the values of all [`USER_HEADER`]s name.
///
/// # Errors
/// [`Refusal::MissingUser`] without a value or with an empty one, [`Refusal::InvalidUser`] if it is malformed or there
/// are several.
pub fn user<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<UserId, Refusal> {
    let mut values = values.into_iter();
    match (values.next(), values.next()) {
        (None | Some(b""), None) => Err(Refusal::MissingUser),
        (Some(value), None) => {
            std::str::from_utf8(value).ok().and_then(|id| UserId::parse(id).ok()).ok_or(Refusal::InvalidUser)
        }
        _ => Err(Refusal::InvalidUser),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_campaign_is_one_decoded_parameter() {
        let spring = CampaignId::parse("spring").unwrap();
        for query in ["campaign=spring", "a=b&campaign=spring&", "c%61mpaign=%73pring", "campaign=spring&Campaign=x"] {
            assert_eq!(campaign(query.as_bytes(), None), Ok(spring.clone()), "{query}");
        }
        for query in ["", "a=b", "&&", "campaignx=y"] {
            assert_eq!(campaign(query.as_bytes(), Some(&spring)), Ok(spring.clone()), "{query}");
            assert_eq!(campaign(query.as_bytes(), None), Err(Refusal::InvalidCampaign), "{query}");
        }
        for query in [
            "campaign=",
            "campaign",
            "campaign=a&campaign=a",
            "campaign=%00",
            "campaign=%zz",
            "campaign=%ff",
            "campaign=a+b",
        ] {
            assert_eq!(campaign(query.as_bytes(), Some(&spring)), Err(Refusal::InvalidCampaign), "{query}");
        }
    }

    #[test]
    fn the_user_is_one_header() {
        assert_eq!(user([b"u1".as_slice()]).unwrap().as_str(), "u1");
        assert_eq!(user([]), Err(Refusal::MissingUser));
        assert_eq!(user([b"".as_slice()]), Err(Refusal::MissingUser));
        for values in [vec![b"u1".as_slice(), b"u1"], vec![b"u 1"], vec![b"u1,u2"], vec![b"\xff"], vec![b"", b""]] {
            assert_eq!(user(values.iter().copied()), Err(Refusal::InvalidUser), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(query: Vec<u8>, values: Vec<Vec<u8>>) {
            let _ = campaign(&query, None);
            let _ = user(values.iter().map(Vec::as_slice));
        }
    }
}
